"""`benchmark`: the same song at many lengths, batches and steps, with thinking and without."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import torch

from acestep.errors import AceStepError, first_line
from acestep.limits.plan import Plan, clamp
from acestep.request import DecodePath, Request
from acestep.result import Result
from acestep.stage import Stage
from calibrate.files import csv_text
from calibrate.profiling.session import ProfilingSession
from calibrate.profiling.song_profile import warm_up

MATRIX_SCHEMA_VERSION = 1

DECIMALS = 6
"""Decimals of numbers in a CSV file: the clock around a song is not more precise."""


class Axes(msgspec.Struct, frozen=True, kw_only=True):
    """The values to try, in all combinations."""

    durations_s: tuple[float, ...] = (30.0, 60.0, 120.0, 240.0)
    batches: tuple[int, ...] = (1, 2, 4)
    thinking: tuple[bool, ...] = (False, True)
    steps: tuple[int, ...] = (8, 16)


class MatrixCell(msgspec.Struct, frozen=True, kw_only=True):
    """A request within the plan's limits; `cuts` name the larger values of the axes that it stands for."""

    request: Request
    cuts: tuple[str, ...]


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one cell. A failed cell has an `error` and zeros; a missing stage takes 0 seconds."""

    duration_s: float
    batch: int
    thinking: bool
    steps: int
    error: str = ""
    seconds: float = 0.0
    music_per_second: float = 0.0
    stage_seconds: dict[str, float] = {}
    lm_tokens_per_second: float = 0.0
    peak_allocated_bytes: int = 0
    peak_reserved_bytes: int = 0
    songs_per_pass: int = 0
    decode_path: DecodePath | None = None
    warnings: tuple[str, ...] = ()


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """The document. `complete` is false if it was interrupted."""

    schema_version: int
    mode: str
    device: str
    model: str
    plan: Plan
    load_seconds: float
    complete: bool
    results: tuple[MatrixRow, ...]
    warnings: tuple[str, ...]


def cells(song: Request, axes: Axes, plan: Plan, *, thinks: bool) -> tuple[MatrixCell, ...]:
    """Return every request of the axes as the plan reduces it, once; with thinking only if `thinks`."""
    found: dict[tuple[float, int, bool, int], MatrixCell] = {}
    thinking = [think for think in axes.thinking if thinks or not think]
    for think, duration_s, batch, steps in itertools.product(thinking, axes.durations_s, axes.batches, axes.steps):
        request = msgspec.structs.replace(song, duration_s=duration_s, batch=batch, steps=steps, think=think)
        request, cuts = clamp(request, plan, lm=think)
        key = (request.duration_s, request.batch, request.think, request.steps)
        before = found[key].cuts if key in found else ()
        found[key] = MatrixCell(request=request, cuts=(*before, *cuts))
    return tuple(found.values())


def benchmark(
    session: ProfilingSession, tried: Sequence[MatrixCell], *, warm: bool, advance: Callable[[str], None]
) -> Benchmark:
    """Run every cell; a failed one is a row like any other, and an interrupt keeps the rows so far."""
    rows: list[MatrixRow] = []
    runs = _runs(session, tried, warm=warm)
    interrupted = False
    try:
        for row in runs:
            rows.append(row)
            advance(f"{describe_row(row)}: {row.error or f'{row.seconds:.2f} s'}")
    except KeyboardInterrupt:
        interrupted = True
    return Benchmark(
        schema_version=MATRIX_SCHEMA_VERSION,
        mode="benchmark",
        device=session.machine.card.name,
        model=session.machine.model,
        plan=session.machine.plan,
        load_seconds=session.load_seconds,
        complete=not interrupted,
        results=tuple(rows),
        warnings=session.notes.sentences,
    )


def describe_row(row: MatrixRow) -> str:
    """Return a row's cell as text for one line."""
    return f"{row.batch} x {row.duration_s:g} s, {row.steps} steps{', thinking' if row.thinking else ''}"


def as_csv(found: Benchmark) -> str:
    """Return a line for each row, with a column for the seconds of each stage."""
    plain = [name for name in MatrixRow.__struct_fields__ if name not in ("stage_seconds", "warnings")]
    rows = []
    for row in found.results:
        values = {name: getattr(row, name) for name in plain}
        values |= {f"{stage}_seconds": row.stage_seconds.get(stage, 0.0) for stage in Stage}
        rows.append({k: round(value, DECIMALS) if isinstance(value, float) else value for k, value in values.items()})
    return csv_text([*plain, *(f"{stage}_seconds" for stage in Stage)], rows)


def _runs(session: ProfilingSession, tried: Sequence[MatrixCell], *, warm: bool) -> Iterator[MatrixRow]:
    """Run each cell, warmed up once for every length and batch, and once with thinking."""
    warmed: set[tuple[float, int] | bool] = set()
    for cell in tried:
        request = cell.request
        needs = {(request.duration_s, request.batch), *({True} if request.think else ())} - warmed
        problem = ""
        session.recorder.passes.clear()
        try:
            if warm and needs:
                warm_up(session, request if True in needs else msgspec.structs.replace(request, think=False))
                session.recorder.passes.clear()
                warmed |= needs
            yield _measured(session, request)
        except (AceStepError, torch.OutOfMemoryError, RuntimeError, ValueError) as error:
            problem = first_line(error)
        if problem:
            # Outside the except block, because the traceback keeps half-made tensors alive.
            session.rest()
            yield MatrixRow(
                **_cell_of(request),
                error=problem,
            )


def _cell_of(request: Request) -> dict[str, Any]:
    return {
        "duration_s": request.duration_s,
        "batch": request.batch,
        "thinking": request.think,
        "steps": request.steps,
    }


def _measured(session: ProfilingSession, request: Request) -> MatrixRow:
    started = time.perf_counter()
    result: Result = session.generate(request)
    seconds = time.perf_counter() - started
    writing = sum(one.seconds for one in session.recorder.passes)
    tokens = sum(len(song) for one in session.recorder.passes for song in one.tokens)
    return MatrixRow(
        **_cell_of(request),
        seconds=seconds,
        music_per_second=request.batch * request.duration_s / seconds,
        stage_seconds={stage.name: stage.seconds for stage in result.stages},
        lm_tokens_per_second=tokens / writing if writing else 0.0,
        peak_allocated_bytes=max(stage.peak_allocated_bytes for stage in result.stages),
        peak_reserved_bytes=max(stage.peak_reserved_bytes for stage in result.stages),
        songs_per_pass=result.songs_per_pass,
        decode_path=result.decode_path,
        warnings=result.warnings,
    )
