"""The profiler's modes on the tiny model: one document, or tables with the same content."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from acestep.cli import console
from acestep.errors import Exit
from acestep.request import CODE_FRAMES, LEAST_FRAMES
from acestep.units import ceil_div
from calibrate.profiling.cli import cli
from tests.some import first_of

Run = Callable[..., tuple[int, str, str]]

BRIEF = ("--duration", "2", "--inference-steps", "2", "--no-use-cot-caption")
CODES = "".join(f"<|audio_code_{code}|>" for code in range(10))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The profiler on the CPU with a model that writes little."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    monkeypatch.setattr("acestep.lm.grammar.MAX_LYRIC_TOKENS", 12)
    monkeypatch.chdir(tmp_path)

    def call(mode: str, *arguments: str) -> tuple[int, str, str]:
        code = console.run_click(cli, ["--mode", mode, "--config-path", "tiny", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def document(run: Run, mode: str, *arguments: str) -> dict[str, Any]:
    code, out, err = run(mode, *arguments, "--json")
    assert code == Exit.OK, err
    read: dict[str, Any] = json.loads(out)
    assert read["mode"] == mode
    return read


FEWEST_CODES = ceil_div(LEAST_FRAMES, CODE_FRAMES)
"""Of a song of 2 s, which is made in the fewest frames."""


def test_a_profile_accounts_for_the_time_the_steps_and_the_tokens(run: Run) -> None:
    found = document(run, "profile", *BRIEF, "--thinking", "--batch-size", "3", "--llm-debug", "--detailed")
    stages = {stage["name"]: stage["seconds"] for stage in found["stages"]}
    assert list(stages) == ["think", "encode_audio", "encode", "denoise", "decode"]
    assert sum(stages.values()) <= found["seconds"]
    assert found["request"] | {"duration_s": 2.0, "batch": 3, "steps": 2, "thinks": True} == found["request"]
    assert sum(found["step_seconds"]) == pytest.approx(stages["denoise"])
    assert found["music_per_second"] == pytest.approx(3 * 2.0 / found["seconds"])
    (codes,) = found["language_model"]
    assert (codes["what"], codes["songs"], codes["tokens"]) == ("codes", 3, 3 * (FEWEST_CODES + 1))
    assert 0 < codes["seconds"] <= stages["think"]
    assert [exchange["written"].count("<|audio_code_") for exchange in found["exchanges"]] == [FEWEST_CODES] * 3
    times = [row["own_seconds"] for row in found["functions"]]
    assert times == sorted(times, reverse=True)
    assert any("conv1d" in row["name"] for row in found["functions"])
    assert any("noise, not music" in sentence for sentence in found["warnings"])
    assert found["warm_up_seconds"] > 0


def test_a_profile_says_as_tables_what_its_document_holds(run: Run) -> None:
    code, out, err = run("profile", *BRIEF, "--no-warmup", "--no-thinking")
    assert code == Exit.OK, err
    for said in ("1 song of 2 s in 2 steps", "not warmed up", "denoise", "total", "from step"):
        assert said in out
    assert "language model" not in out
    assert "\x1b" not in out


@pytest.mark.parametrize("task", ["cover", "repaint", "codes"])
def test_other_tasks_and_their_recordings_can_be_profiled(task: str, run: Run, tmp_path: Path) -> None:
    recording = tmp_path / "song.wav"
    soundfile.write(recording, np.zeros((48_000 * 2, 2), dtype=np.float32), 48_000)
    codes = ("--audio-codes", CODES)
    arguments = codes if task == "codes" else ("--task-type", task, "--src-audio", str(recording))
    found = document(run, "profile", *arguments, "--inference-steps", "1", "--no-warmup", "--no-thinking")
    assert found["request"]["duration_s"] == 2.0
    assert found["request"]["task"] == ("cover" if task == "codes" else task)
    assert "encode_audio" in [stage["name"] for stage in found["stages"]]


def test_a_benchmark_prints_and_writes_a_row_for_each_cell(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "cells.json"
    arguments = ("--duration", "1", "2", "--batch-size", "1", "--inference-steps", "1", "--no-use-cot-caption")
    code, out, err = run("benchmark", *arguments, "--benchmark-output", str(target))
    assert code == Exit.OK, err
    found = json.loads(target.read_text())
    cells = [(row["duration_s"], row["batch"], row["thinking"]) for row in found["results"]]
    assert cells == [(1.0, 1, False), (2.0, 1, False), (1.0, 1, True), (2.0, 1, True)]
    assert all(row["lm_tokens_per_second"] > 0 for row in found["results"] if row["thinking"])
    assert len([line for line in out.splitlines() if " x " in line]) == len(cells)


def test_a_cell_without_memory_is_a_row_and_exit_code_five(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acestep.engine.pipeline.denoise", out_of_memory)
    code, out, _ = run(
        "benchmark", "--duration", "1", "2", "--batch-size", "1", "--inference-steps", "1", "--no-thinking"
    )
    assert code == Exit.RUN_FAILED
    assert out.count("failed: The computer ran out of memory") == 2


def out_of_memory(*_: object) -> None:
    import torch

    raise torch.OutOfMemoryError("Tried to allocate 1.00 GiB")


@pytest.mark.parametrize(
    ("mode", "arguments"),
    first_of(
        [
            ("understand", ()),
            ("understand", ("--audio-codes", CODES, "--lm-temperature", "0")),
            ("create_sample", ("--sample-query", "a sad song", "--instrumental")),
            ("format_sample", ("--example", "kitchen_waltz")),
        ],
        2,
    ),
)
def test_the_language_model_alone_says_a_song_and_how_fast(mode: str, arguments: tuple[str, ...], run: Run) -> None:
    found = document(run, mode, *arguments, "--seed", "3", "--llm-debug")
    again = document(run, mode, *arguments, "--seed", "3")
    for field in ("caption", "lyrics", "bpm", "duration_s", "keyscale"):
        assert found[field] == again[field]
    (words,) = found["language_model"]
    assert words["what"] == "words"
    assert words["tokens_per_second"] == pytest.approx(words["tokens"] / words["seconds"])
    (exchange,) = found["exchanges"]
    assert exchange["prompt"].startswith("<|im_start|>system")
    if mode == "format_sample":
        assert (found["bpm"], found["duration_s"], found["keyscale"]) == (168, 60, "C major")
    if "--instrumental" in arguments:
        assert "instrumental: true" in exchange["prompt"]
    code, out, _ = run(mode, *arguments, "--seed", "3")
    assert code == Exit.OK
    assert "Tempo:" in out
    assert "tokens a second" in out


def test_words_without_rules_that_mean_nothing_are_exit_code_five_after_their_speed(run: Run) -> None:
    code, out, err = run("create_sample", "--no-constrained-decoding", "--llm-debug")
    assert code == Exit.RUN_FAILED
    assert "tokens a second" in out
    assert "1 of 1: written" in out
    assert "wrote no metadata" in err
    code, out, _ = run("create_sample", "--no-constrained-decoding", "--json")
    assert code == Exit.RUN_FAILED
    assert "wrote no metadata" in json.loads(out)["problem"]


def test_a_language_model_that_does_not_fit_is_exit_code_five_and_names_the_flag_for_another(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.lm.backends.pt.PtBackend.write", out_of_memory)
    code, _, err = run("understand")
    assert code == Exit.RUN_FAILED
    assert "Tried to allocate 1.00 GiB" in err
    assert "--lm-model" in err


def test_weights_that_are_missing_are_refused_where_planning_was_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACESTEP_CHECKPOINTS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("acestep.lm.songwriting.TINY", "0.6B")
    code, out, err = run("profile", *BRIEF, "--no-warmup", "--thinking")
    assert (code, out) == (Exit.INVALID, "")
    assert "acestep download" in err
    cell = ("--duration", "1", "--batch-size", "1", "--inference-steps", "1", "--no-warmup")
    code, out, err = run("benchmark", *cell)
    assert code == Exit.OK
    assert "without planning" in err
    assert "acestep download" in err


def test_a_plan_without_rules_that_means_nothing_ends_the_profile_and_shows_what_was_written(run: Run) -> None:
    code, out, err = run("profile", "--duration", "1", "--thinking", "--no-constrained-decoding", "--llm-debug")
    assert (code, out) == (Exit.RUN_FAILED, "")
    assert "1 of 1: written" in err
    assert "wrote no metadata" in err


def test_what_works_on_a_song_that_exists_is_not_planned_and_says_so(run: Run) -> None:
    found = document(run, "profile", "--audio-codes", CODES, "--inference-steps", "1", "--no-warmup", "--thinking")
    assert not found["request"]["thinks"]
    assert found["language_model"] == []
    assert any("to cover is to work on one that exists" in sentence for sentence in found["warnings"])


def test_thinking_that_cannot_be_had_is_refused_where_asked_for_and_left_out_where_not(run: Run) -> None:
    code, _, err = run("profile", *BRIEF, "--thinking", "--lm-model", "none")
    assert code == Exit.USAGE
    assert "--lm-model" in err
    code, _, err = run(
        "benchmark", "--duration", "1", "--batch-size", "1", "--inference-steps", "1", "--lm-model", "none"
    )
    assert code == Exit.OK
    assert "without planning" in err
