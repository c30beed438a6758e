"""Every published flag of the profiler exists, and is refused in modes where it has no meaning."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from msgspec import UNSET

from acestep.cli import console
from acestep.errors import Exit, UsageError
from acestep.knobs import Offload
from acestep.request import Task
from acestep.thinking import Think
from calibrate.profiling import asked
from calibrate.profiling.cli import cli
from calibrate.profiling.example import load_example
from calibrate.profiling.flags import _FLAGS, Mode

PUBLISHED = {
    *("--device", "--lm-backend", "--config-path", "--lm-model", "--offload-to-cpu", "--offload-dit-to-cpu"),
    *("--quantization", "--duration", "--batch-size", "--inference-steps", "--seed", "--guidance-scale", "--thinking"),
    *("--use-cot-metas", "--use-cot-caption", "--use-cot-language", "--use-constrained-decoding"),
    *("--no-constrained-decoding", "--lm-temperature", "--lm-cfg-scale", "--no-warmup", "--example", "--task-type"),
    *("--reference-audio", "--src-audio", "--sample-query", "--instrumental", "--audio-codes", "--benchmark-output"),
    *("--mode", "--detailed", "--llm-debug", "--json"),
    *("--tiers", "--tier-with-lm", "--tier-skip-compile", "--tier-boundary", "--tier-batch-boundary"),
}

VALUES = {
    "--duration": ["30"],
    "--batch-size": ["1"],
    "--inference-steps": ["8"],
    "--seed": ["1"],
    "--guidance-scale": ["2"],
    "--lm-temperature": ["1"],
    "--lm-cfg-scale": ["1"],
    "--lm-model": ["0.6B"],
    "--lm-backend": ["pt"],
    "--quantization": ["int8"],
    "--task-type": ["cover"],
    "--tiers": ["8"],
    "--os": ["windows"],
}


def test_the_published_flags_exist() -> None:
    """Scripts name them: more may be added, none renamed."""
    assert {name for parameter in cli.params for name in (*parameter.opts, *parameter.secondary_opts)} >= PUBLISHED
    assert {mode.value for mode in Mode} == {
        *("profile", "benchmark", "tier-test", "understand", "create_sample", "format_sample"),
    }


def meaningless(mode: Mode) -> Iterator[tuple[list[str], tuple[Mode, ...]]]:
    """Every flag that a mode has no use for, as one would write it, and the modes that have."""
    for modes, declared, attributes in _FLAGS:
        names = [name for name in declared[0].split("/") if name.startswith("--")]
        switch = bool(attributes.get("is_flag")) or "flag_value" in attributes or len(names) > 1
        if mode not in modes:
            yield from (([name, *([] if switch else VALUES.get(name, ["x"]))], modes) for name in names)


@pytest.mark.parametrize("mode", [mode.value for mode in Mode])
def test_a_flag_that_means_nothing_in_a_mode_is_a_usage_error_that_names_its_modes(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = list(meaningless(Mode(mode)))
    assert flags
    for flag, modes in flags:
        assert console.run_click(cli, ["--mode", mode, *flag]) == Exit.USAGE
        said = capsys.readouterr()
        assert said.out == ""
        assert "means nothing" in said.err, flag
        assert all(meant in said.err for meant in modes)


@pytest.mark.parametrize(
    ("everything", "transformer", "offload"),
    [
        (None, None, UNSET),
        (False, None, Offload.NONE),
        (False, False, Offload.NONE),
        (True, None, Offload.CPU),
        (True, False, Offload.CPU),
        (True, True, Offload.CPU_DIT),
    ],
)
def test_the_two_published_offload_flags_mean_an_offload_mode(
    everything: bool | None, transformer: bool | None, offload: Offload
) -> None:
    assert asked._offload(everything, transformer) is offload


@pytest.mark.parametrize(("everything", "transformer"), [(None, True), (False, True), (None, False)])
def test_half_an_offload_is_a_usage_error(everything: bool | None, transformer: bool) -> None:
    with pytest.raises(UsageError, match="--offload-to-cpu"):
        asked._offload(everything, transformer)


@pytest.mark.parametrize(("flag", "think"), [(None, Think.AS_PLANNED), (True, Think.YES), (False, Think.NO)])
def test_thinking_is_asked_for_refused_or_left_to_the_tier(flag: bool | None, think: Think) -> None:
    assert asked.think_of({"thinking": flag}) is think


def test_a_request_is_the_example_s_with_what_the_flags_say_instead(tmp_path: Path) -> None:
    recording = tmp_path / "song.wav"
    soundfile.write(recording, np.zeros((48_000, 2), dtype=np.float32), 48_000)
    flags = cli.make_context("profiler", ["--mode", "profile"], resilient_parsing=True).params
    example = load_example(asked.DEFAULT_EXAMPLE)
    plain = asked.profile_request(flags)
    assert (plain.caption, plain.duration_s, plain.seed) == (example.caption, example.duration_s, example.seed)
    changed = asked.profile_request(
        {**flags, "reference_audio": recording, "duration": (9.0,), "seed": 3, "lm_temperature": 0.5, "thinking": False}
    )
    assert changed.reference_audio is not None
    assert (changed.task, changed.duration_s, changed.seed, changed.think) == (Task.TEXT2MUSIC, 9.0, 3, False)
    assert changed.thinking.sampling.temperature == 0.5
    following = asked.profile_request({**flags, "src_audio": recording, "task_type": "repaint"})
    assert following.duration_s == 1.0
    for task in ("extract", "lego"):
        named = asked.profile_request({**flags, "src_audio": recording, "task_type": task, "track": "Drums"})
        assert (named.task, named.track) == (task, "drums")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mode", "profile", "--benchmark-output", "cells.csv"),
        ("--mode", "benchmark", "--benchmark-output", "cells"),
        ("--mode", "benchmark", "--duration", "0"),
        ("--mode", "benchmark", "--batch-size", "1", "-2"),
        ("--mode", "benchmark", "--device", "simulated"),
        ("--mode", "profile", "--duration", "30", "60"),
        ("--mode", "profile", "--config-path", " "),
        ("--mode", "profile", "--config-path", "tiny", "--lm-temperature", "9"),
        ("--mode", "profile", "--config-path", "tiny", "--example", "../nothing"),
        ("--mode", "profile", "--config-path", "tiny", "--task-type", "cover"),
        ("--mode", "understand", "--config-path", "tiny", "--audio-codes", "none at all"),
        ("--mode", "create_sample", "--config-path", "tiny", "--lm-model", "none"),
        ("--mode", "tier-test", "--device", "cpu"),
    ],
)
def test_an_invalid_value_is_a_usage_error_before_a_model_is_loaded(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert console.run_click(cli, arguments) == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "random weights: the songs" not in said.err


def test_a_device_that_is_not_here_could_not_be_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (
        console.run_click(cli, ["--mode", "profile", "--config-path", "tiny", "--device", "mps"]) == Exit.NOT_MEASURED
    )
    assert "--device mps" in capsys.readouterr().err


def test_the_command_line_is_read_without_torch() -> None:
    code = "import sys, calibrate.profiling.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
