"""The profiler's results as text: tables on stdout, a sentence above each."""

import re
from collections.abc import Sequence

import click

from acestep.checkpoints.catalog import SIZES
from acestep.cli.show import description_text
from acestep.knobs import Offload
from acestep.limits.plan import Plan
from acestep.stage import Stage
from acestep.units import MIB, minutes
from calibrate.profiling.matrix import Benchmark, MatrixRow
from calibrate.profiling.song_profile import FunctionTime, SongProfile
from calibrate.profiling.words import WordProfile
from calibrate.profiling.writing import CODE_TEXT, Exchange, WritingPass
from calibrate.screen import print_table

STEPS_A_LINE = 10

CODES_SHOWN = 8
"""Audio codes of a song that are printed; the document has them all."""

EMPTY_CELL = "-"


def print_profile(found: SongProfile) -> None:
    """Print the songs, the stages, the steps, the language model, and on request functions and texts."""
    asked = found.request
    songs = f"{asked.batch} {'song' if asked.batch == 1 else 'songs'} of {minutes(asked.duration_s)}"
    click.echo(f"{asked.task}: {songs} in {asked.steps} steps{_planned_by(found)}")
    click.echo(_settings(found.plan, found.model, found.device))
    warm_up = f"warmed up in {_s(found.warm_up_seconds)}" if found.warm_up_seconds else "not warmed up"
    pace = f"{found.music_per_second:.2f} s of music a second"
    click.echo(f"Loaded in {_s(found.load_seconds)}, {warm_up}, made in {_s(found.seconds)}: {pace}\n")
    print_table("Stages", ("stage", "seconds", "share", "songs a pass", "allocated", "reserved"), _stage_rows(found))
    _print_steps(found.step_seconds)
    _print_writing(found.language_model)
    _print_functions(found.functions)
    if found.exchanges:
        click.echo(exchanges_text(found.exchanges))


def print_benchmark(found: Benchmark) -> None:
    """Print a row per cell, then the failures."""
    click.echo(f"{_settings(found.plan, found.model, found.device)}; loaded in {_s(found.load_seconds)}\n")
    stages = [stage for stage in Stage if any(stage in row.stage_seconds for row in found.results)]
    columns = ("songs", "steps", "thinking", *stages, "total", "music a second", "LM tokens/s", "reserved", "remarks")
    print_table(
        "Seconds of each stage", columns, [_benchmark_cells(row, stages) for row in found.results], folding=("remarks",)
    )


def print_words(found: WordProfile) -> None:
    """The song in words, and how fast it was written."""
    fields = ("caption", "lyrics", "bpm", "duration_s", "keyscale", "language", "timesignature")
    if not found.problem:
        click.echo(printable(description_text({name: getattr(found, name) for name in fields})) + "\n")
    _print_writing(found.language_model)
    if found.exchanges:
        click.echo(exchanges_text(found.exchanges))


def printable(text: str) -> str:
    """Return text without control characters for a terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _settings(plan: Plan, model: str, device: str) -> str:
    """Return the settings of the run as text."""
    weights = plan.quantization or "unquantized"
    run = "compiled" if plan.compile else "eager"
    kept = "" if plan.offload is Offload.NONE else f", offload {plan.offload}"
    return f"{model} ({plan.variant}) on {device}, {weights}, {run}{kept}"


def _planned_by(found: SongProfile) -> str:
    if not found.request.thinks:
        return ""
    # A model without files uses a language model of the same kind, run by PyTorch.
    kind = f"a {found.model} language model" if found.model in SIZES else f"{found.plan.lm} on {found.plan.backend}"
    return f", planned by {kind}"


def _stage_rows(found: SongProfile) -> list[tuple[str, ...]]:
    rows = [
        (
            stage.name,
            f"{stage.seconds:.3f}",
            _share(stage.seconds, found.seconds),
            str(stage.songs_per_pass),
            _mib(stage.peak_allocated_bytes),
            _mib(stage.peak_reserved_bytes),
        )
        for stage in found.stages
    ]
    rest = max(0.0, found.seconds - sum(stage.seconds for stage in found.stages))
    return [
        *rows,
        ("between them", f"{rest:.3f}", _share(rest, found.seconds), "", "", ""),
        ("total", f"{found.seconds:.3f}", "100 %", "", "", ""),
    ]


def _print_steps(seconds: Sequence[float]) -> None:
    lines = [seconds[start : start + STEPS_A_LINE] for start in range(0, len(seconds), STEPS_A_LINE)]
    rows = []
    for number, line in enumerate(lines):
        cells = [f"{step:.3f}" for step in line]
        rows.append((str(number * STEPS_A_LINE + 1), *cells, *[""] * (len(lines[0]) - len(line))))
    if rows:
        columns = ("from step", *(f"+{place}" for place in range(len(lines[0]))))
        print_table("Seconds of each denoising step; the first with what comes before and after them", columns, rows)


def _print_writing(rows: Sequence[WritingPass]) -> None:
    if not rows:
        return
    print_table(
        "The language model",
        ("writes", "songs", "prompt tokens", "tokens", "seconds", "tokens a second"),
        [
            (
                row.what,
                str(row.songs),
                str(row.prompt_tokens),
                str(row.tokens),
                f"{row.seconds:.3f}",
                f"{row.tokens_per_second:.0f}",
            )
            for row in rows
        ],
    )


def _print_functions(rows: Sequence[FunctionTime]) -> None:
    if not rows:
        return
    print_table(
        "Python functions in another run, under cProfile (which slows Python down)",
        ("calls", "own seconds", "with callees", "function"),
        [(str(row.calls), f"{row.own_seconds:.3f}", f"{row.total_seconds:.3f}", row.name) for row in rows],
    )


def exchanges_text(rows: Sequence[Exchange]) -> str:
    """Return the language model's prompts and written texts, one sequence after the other."""
    return "\n".join(
        f"--- {number} of {len(rows)}: {what} ---\n{printable(_few_codes(text))}\n"
        for number, row in enumerate(rows, 1)
        for what, text in (("asked", row.prompt), ("written", row.written))
    )


def _few_codes(text: str) -> str:
    """Return a text with only the first audio codes of a song."""

    def shortened(found: re.Match[str]) -> str:
        codes = found[0].split("><")
        if len(codes) <= CODES_SHOWN:
            return found[0]
        return f"{'><'.join(codes[:CODES_SHOWN])}> and {len(codes) - CODES_SHOWN:,} more"

    return CODE_TEXT.sub(shortened, text)


def _benchmark_cells(row: MatrixRow, stages: Sequence[str]) -> tuple[str, ...]:
    cell = (f"{row.batch} x {row.duration_s:g} s", str(row.steps), "yes" if row.thinking else "no")
    if row.error:
        return (*cell, *(EMPTY_CELL for _ in stages), *[EMPTY_CELL] * 4, f"failed: {row.error}")
    return (
        *cell,
        *(f"{row.stage_seconds[stage]:.3f}" if stage in row.stage_seconds else EMPTY_CELL for stage in stages),
        f"{row.seconds:.3f}",
        f"{row.music_per_second:.2f}",
        f"{row.lm_tokens_per_second:.0f}" if row.lm_tokens_per_second else EMPTY_CELL,
        _mib(row.peak_reserved_bytes),
        " ".join(row.warnings),
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else EMPTY_CELL


def _mib(n_bytes: int) -> str:
    """Return bytes as text; devices that do not count give 0."""
    return f"{n_bytes / MIB:,.0f} MiB" if n_bytes else EMPTY_CELL


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s"
