"""`acestep generate` hands on what was asked, and names what it refuses as it was typed."""

import ast
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acestep.cli.main import _REQUEST_FLAGS, _THINKING_FLAGS, cli
from acestep.cli.options import in_flags
from acestep.errors import Exit, RunFailedError, UsageError
from acestep.knobs import Offload, Variant
from acestep.limits.plan import Overrides
from acestep.request import _RANGES, READ_BY_TASKS, Request
from acestep.thinking import Sampling, Think
from tests import acestep_command
from tests.acestep_command import Command, stand_in_for_models

command = acestep_command.command


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the part that loads models, all of which are there; keeps what it was asked for."""
    calls: list[dict[str, Any]] = []

    def run_generate(request: Request, **rest: Any) -> dict[str, Any]:
        calls.append({"request": request, **rest})
        rest["notify"]("tiny weights make noise")
        rest["progress"]("denoise", 1, 2)
        return {"songs": [{"path": "out/a.flac", "seed": request.seed, "duration_s": 90.0}], "warnings": []}

    return SimpleNamespace(calls=calls, module=stand_in_for_models(monkeypatch, run_generate))


def test_generate_passes_every_option_on(command: Command, api: SimpleNamespace, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("봄날의 노래", encoding="utf-8")
    arguments = "--duration 90 --batch 2 --seed 7 --steps 4 --bpm 92 --model xl-turbo --offload stream --format wav"
    done = command("generate", "--caption", "slow piano", "--lyrics", f"@{words}", *arguments.split(), "--out", "o")
    assert done.code == Exit.OK
    (call,) = api.calls
    assert call["request"] == Request(
        caption="slow piano", lyrics="봄날의 노래", duration_s=90, batch=2, seed=7, steps=4, bpm=92, think=True
    )
    assert call["overrides"] == Overrides(variant=Variant.XL_TURBO, offload=Offload.STREAM)
    assert (call["model"], call["out"], call["audio_format"]) == ("xl-turbo", Path("o"), "wav")
    assert call["think"] is Think.AS_PLANNED
    assert "out/a.flac" in done.out
    assert "1 min 30 s" in done.out
    assert "noise" in done.err


def test_generate_with_json_prints_one_document_and_talks_on_stderr(command: Command, api: SimpleNamespace) -> None:
    done = command("generate", "--caption", "x", "--json", "--no-think")
    assert json.loads(done.out)["songs"][0]["path"] == "out/a.flac"
    assert "noise" in done.err
    assert (api.calls[0]["think"], api.calls[0]["request"].think) == (Think.NO, False)


def test_songs_without_a_seed_differ(command: Command, api: SimpleNamespace) -> None:
    for _ in range(2):
        command("generate", "--caption", "x")
    first, second = (call["request"].seed for call in api.calls)
    assert first != second


def test_lyrics_from_a_file_that_is_not_there_are_invalid_input(command: Command, api: SimpleNamespace) -> None:
    done = command("generate", "--caption", "x", "--lyrics", "@missing.txt")
    assert done.code == Exit.INVALID
    assert "missing.txt" in done.err
    assert api.calls == []


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--model", "", "--model is empty"),
        ("--model", " ", "--model is empty"),
        ("--out", "", "--out is empty"),
        ("--lyrics", "@", "@ must be followed by the name of a file"),
        ("--audio-codes", "@", "@ must be followed by the name of a file"),
    ],
)
def test_an_option_that_names_nothing_is_a_usage_error(
    command: Command, api: SimpleNamespace, flag: str, value: str, said: str
) -> None:
    done = command("generate", "--caption", "x", flag, value)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert said in done.err
    assert api.calls == []


def flags_of_generate() -> set[str]:
    return {flag for option in cli.commands["generate"].params for flag in option.opts}


def test_every_field_that_a_request_may_refuse_has_a_flag() -> None:
    refusing = [node for node in ast.walk(ast.parse(inspect.getsource(Request))) if isinstance(node, ast.Raise)]
    told = " ".join(str(part.value) for node in refusing for part in ast.walk(node) if isinstance(part, ast.Constant))
    fields = (
        {field for field in Request.__struct_fields__ if re.search(rf"\b{field}\b", told)}
        | set(READ_BY_TASKS)
        | set(_RANGES)
    )
    # "the task is text2music" speaks of the task by its own name, which is that of its flag.
    assert set(_REQUEST_FLAGS) == fields - {"task"}
    assert set(_REQUEST_FLAGS.values()) <= flags_of_generate()


def test_every_field_that_sets_how_a_plan_is_drawn_has_a_flag() -> None:
    # The penalty has no option, so no user can get an error about it.
    assert set(_THINKING_FLAGS) == {"thinking seed", *Sampling.__struct_fields__} - {"repetition_penalty"}
    assert set(_THINKING_FLAGS.values()) <= flags_of_generate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "4000"], "--duration must be 1 to 3600 seconds, got 4000"),
        (["--task", "cover"], "it needs --src-audio or --audio-codes"),
        (["--audio-codes", "<|audio_code_1|>"], "--audio-codes must last at least 1 second"),
        (["--repaint-start", "-1"], "--repaint-start is for lego and repaint; the task is text2music"),
        (["--lm-cfg-scale", "99"], "--lm-cfg-scale must be 1 to 30, got 99"),
        (["--guidance-scale", "99"], "--guidance-scale must be 0 to 30, got 99"),
        (["--plan-seed", "-2"], "--plan-seed must be 0 to"),
        (["--lm-top-k", "-1"], "--lm-top-k must be 0 to"),
    ],
)
def test_what_is_refused_is_named_as_it_was_typed(
    command: Command, api: SimpleNamespace, arguments: list[str], said: str
) -> None:
    done = command("generate", "--caption", "x", *arguments)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert said in done.err
    assert api.calls == []


def test_a_quoted_name_stays_as_it_was_written() -> None:
    assert in_flags("tracks must be names, got 'my track two', ''", _REQUEST_FLAGS) == (
        "--tracks must be names, got 'my track two', ''"
    )


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (RunFailedError("the disk is full"), Exit.RUN_FAILED, "error: the disk is full"),
        (UsageError("no such model"), Exit.USAGE, "error: no such model"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
    ],
)
def test_each_way_to_fail_has_its_exit_code_and_its_sentence(
    command: Command, api: SimpleNamespace, failure: BaseException, code: Exit, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    api.module.run_generate = fail
    done = command("generate", "--caption", "x")
    assert (done.code, done.out, done.err.strip()) == (code, "", said)


@pytest.mark.parametrize("model", ["turbo", "./a-folder"])
@pytest.mark.parametrize(("variant", "code"), [("turbo", Exit.OK), ("base", Exit.USAGE)])
def test_a_variant_is_what_named_weights_must_be(
    command: Command, api: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, model: str, variant: str, code: Exit
) -> None:
    monkeypatch.setattr("acestep.cli.options.variant_at", lambda model, checkpoints: Variant.TURBO)
    done = command("generate", "--caption", "x", "--model", model, "--variant", variant)
    assert done.code == code
    assert ("is turbo, not base" in done.err) == (code is Exit.USAGE)
    assert len(api.calls) == (code is Exit.OK)


def test_a_variant_is_what_weights_without_one_imitate(command: Command, api: SimpleNamespace) -> None:
    assert command("generate", "--caption", "x", "--model", "tiny", "--variant", "base").code == Exit.OK
    assert api.calls[0]["overrides"].variant is Variant.BASE
