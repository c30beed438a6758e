"""The profiler's flags, and the modes in which each of them is valid."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from acestep.cli.options import SIZE_GIB, knob_attributes
from acestep.cli.task_options import AUDIO_FILE
from acestep.errors import UsageError
from acestep.knobs import KNOBS
from acestep.request import MAX_SEED, Task
from calibrate.options import SYSTEM_OPTION, Several

F = TypeVar("F", bound=Callable[..., Any])

DEVICES = ("auto", "cuda", "rocm", "xpu", "mps", "cpu", "simulated")


class Mode(StrEnum):
    """The modes of the profiler."""

    PROFILE = "profile"
    BENCHMARK = "benchmark"
    TIER_TEST = "tier-test"
    UNDERSTAND = "understand"
    CREATE_SAMPLE = "create_sample"
    FORMAT_SAMPLE = "format_sample"


ALL = tuple(Mode)
SONG_FLAGS = (Mode.PROFILE, Mode.BENCHMARK)
WORDS = (Mode.UNDERSTAND, Mode.CREATE_SAMPLE, Mode.FORMAT_SAMPLE)
RUNS = (*SONG_FLAGS, *WORDS)
PROFILE, TIER_TEST = (Mode.PROFILE,), (Mode.TIER_TEST,)

_OUTPUT = click.Path(path_type=Path, dir_okay=False)

_FLAGS: tuple[tuple[tuple[Mode, ...], tuple[str, ...], dict[str, Any]], ...] = (
    (ALL, ("--device",), {"type": click.Choice(DEVICES), "default": "auto", "help": "What to run on."}),
    (TIER_TEST, ("--os", "system"), SYSTEM_OPTION),
    (ALL, ("--benchmark-output",), {"type": _OUTPUT, "metavar": "FILE", "help": "Write the results as JSON or CSV."}),
    (ALL, ("--json", "as_json"), {"is_flag": True, "help": "Print one JSON document instead of tables."}),
    (RUNS, ("--config-path",), {"default": "turbo", "metavar": "ID|DIR|tiny|dummy", "help": "Which weights."}),
    (
        RUNS,
        ("--lm-model",),
        {**knob_attributes("lm"), "help": "Language model, or none."},
    ),
    (
        RUNS,
        ("--lm-backend",),
        {**knob_attributes("backend"), "help": f"What runs it: {KNOBS['backend'].listed}."},
    ),
    (
        SONG_FLAGS,
        ("--offload-to-cpu/--no-offload-to-cpu",),
        {"default": None, "help": "Keep on the card only the transformer and what works (offload cpu), or everything."},
    ),
    (
        SONG_FLAGS,
        ("--offload-dit-to-cpu/--no-offload-dit-to-cpu",),
        {"default": None, "help": "The transformer leaves too (offload cpu+dit)."},
    ),
    (SONG_FLAGS, ("--quantization",), knob_attributes("quantization")),
    (
        SONG_FLAGS,
        ("--duration",),
        {"cls": Several, "type": float, "metavar": "SECONDS...", "help": "Length of each song."},
    ),
    (SONG_FLAGS, ("--batch-size",), {"cls": Several, "type": int, "metavar": "N...", "help": "Songs at once."}),
    (SONG_FLAGS, ("--inference-steps",), {"cls": Several, "type": int, "metavar": "N...", "help": "Denoising steps."}),
    (
        RUNS,
        ("--seed",),
        {"type": click.IntRange(0, MAX_SEED), "metavar": "N", "help": "Seed; that of the example, or 0."},
    ),
    (
        SONG_FLAGS,
        ("--guidance-scale",),
        {"type": float, "metavar": "X", "help": "Guidance; the model's own by itself."},
    ),
    (SONG_FLAGS, ("--thinking/--no-thinking",), {"default": None, "help": "Plan the song with a language model."}),
    (
        SONG_FLAGS,
        ("--use-cot-metas/--no-use-cot-metas",),
        {"default": True, "help": "Let it choose tempo, key, length."},
    ),
    (SONG_FLAGS, ("--use-cot-caption/--no-use-cot-caption",), {"default": True, "help": "Let it reword the caption."}),
    (SONG_FLAGS, ("--use-cot-language/--no-use-cot-language",), {"default": True, "help": "Let it name the language."}),
    (
        RUNS,
        ("--use-constrained-decoding/--no-constrained-decoding", "constrained"),
        {"default": True, "help": "Let it write words only in the form that was trained."},
    ),
    (
        RUNS,
        ("--lm-temperature",),
        {"type": float, "metavar": "X", "help": "Its temperature; 0 takes the most likely token."},
    ),
    (SONG_FLAGS, ("--lm-cfg-scale",), {"type": float, "metavar": "X", "help": "Its guidance; 1 is none."}),
    (SONG_FLAGS, ("--no-warmup", "warm_up"), {"flag_value": False, "default": True, "help": "Measure the first run."}),
    (PROFILE, ("--detailed",), {"is_flag": True, "help": "Also which functions the time went to."}),
    ((*PROFILE, *WORDS), ("--llm-debug",), {"is_flag": True, "help": "Print what it was asked and what it wrote."}),
    (
        (*SONG_FLAGS, *TIER_TEST, Mode.FORMAT_SAMPLE),
        ("--example",),
        {"metavar": "NAME", "help": "Take the request of examples/text2music/NAME.json."},
    ),
    (PROFILE, ("--task-type",), {"type": click.Choice([task.value for task in Task]), "help": "What to do."}),
    (
        PROFILE,
        ("--reference-audio",),
        {"type": AUDIO_FILE, "metavar": "FILE", "help": "A recording whose timbre to take."},
    ),
    (PROFILE, ("--track",), {"default": "", "metavar": "NAME", "help": "The track to extract or to add."}),
    (PROFILE, ("--src-audio",), {"type": AUDIO_FILE, "metavar": "FILE", "help": "The song that a task works on."}),
    (
        (*PROFILE, Mode.UNDERSTAND),
        ("--audio-codes",),
        {"default": "", "metavar": "TEXT|@FILE", "help": "Codes to cover, or to describe."},
    ),
    ((Mode.CREATE_SAMPLE,), ("--sample-query",), {"default": "", "metavar": "TEXT", "help": "The wish for a song."}),
    ((Mode.CREATE_SAMPLE,), ("--instrumental",), {"is_flag": True, "help": "A song without words."}),
    (TIER_TEST, ("--tiers",), {"cls": Several, "type": SIZE_GIB, "metavar": "GIB...", "help": "Card sizes to test."}),
    (TIER_TEST, ("--tier-with-lm",), {"is_flag": True, "help": "With their language model too."}),
    (TIER_TEST, ("--tier-skip-compile",), {"is_flag": True, "help": "No compile without quantization (CUDA only)."}),
    (TIER_TEST, ("--tier-boundary",), {"is_flag": True, "help": "The least VRAM without INT8 and without offload."}),
    (TIER_TEST, ("--tier-batch-boundary",), {"is_flag": True, "help": "The largest batch of each tier."}),
)


def mode_flags(command: F) -> F:
    """Add the flags; each help text ends with the flag's modes, unless it is valid in all."""
    for modes, declared, attributes in reversed(_FLAGS):
        only = {ALL: "", RUNS: f" [not {Mode.TIER_TEST}]"}.get(modes, f" [{', '.join(modes)}]")
        command = click.option(*declared, **{**attributes, "help": attributes["help"] + only})(command)
    return command


def check_flags(context: click.Context, mode: Mode) -> None:
    """Raise `UsageError` for a flag that is not valid in `mode`."""
    meaning = {_parameter(declared): modes for modes, declared, _ in _FLAGS}
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
        if given and mode not in meaning.get(name, ALL):
            raise UsageError(f"{parameter.opts[0]} means nothing in mode {mode}; it is for {', '.join(meaning[name])}")


def _parameter(declared: tuple[str, ...]) -> str:
    """Return click's name for a flag's value."""
    return declared[-1].split("/")[0].removeprefix("--").replace("-", "_")
