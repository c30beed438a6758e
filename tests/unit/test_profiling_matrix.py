"""The benchmark's matrix: within the plan, each cell once, and nothing that goes wrong ends it."""

import csv
import io
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import RunFailedError
from acestep.hardware.card import simulated_card
from acestep.limits.plan import clamp, resolve
from acestep.request import DecodePath, Request
from acestep.result import Result
from acestep.stage import Stage, StageReport
from acestep.tiers import load_tiers
from calibrate.files import pretty_json
from calibrate.profiling.lm_recorder import LmRecorder
from calibrate.profiling.matrix import Axes, Benchmark, MatrixCell, MatrixRow, as_csv, benchmark, cells
from calibrate.profiling.session import Notes

SONG = Request(caption="piano")
PLAN = resolve(simulated_card(4), load_tiers())

axes = st.builds(
    Axes,
    durations_s=st.lists(st.sampled_from([1.0, 30.0, 599.5, 600.0, 900.0]), min_size=1, unique=True).map(tuple),
    batches=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(tuple),
    thinking=st.sampled_from([(False,), (True,), (False, True)]),
    steps=st.lists(st.integers(1, 16), min_size=1, max_size=2, unique=True).map(tuple),
)


@given(axes=axes, thinks=st.booleans())
def test_every_wish_has_its_cell_as_the_plan_cuts_it_and_no_cell_is_there_twice(axes: Axes, thinks: bool) -> None:
    found = cells(SONG, axes, PLAN, thinks=thinks)
    wanted = set()
    for duration_s, batch, think, steps in itertools.product(axes.durations_s, axes.batches, axes.thinking, axes.steps):
        if think and not thinks:
            continue
        asked = msgspec.structs.replace(SONG, duration_s=duration_s, batch=batch, steps=steps, think=think)
        cut, sentences = clamp(asked, PLAN, lm=think)
        wanted.add((cut.duration_s, cut.batch, cut.think, cut.steps))
        assert all(any(sentence in cell.cuts for cell in found) for sentence in sentences)
    keys = [(c.request.duration_s, c.request.batch, c.request.think, c.request.steps) for c in found]
    assert len(keys) == len(set(keys))
    assert set(keys) == wanted


class FakeSession:
    """Answers requests from a script of errors; `made` are the requests in order, `rests` counts."""

    load_seconds = 1.0

    def __init__(self, errors: dict[tuple[float, int], BaseException] | None = None) -> None:
        self.errors = errors or {}
        self.made: list[Request] = []
        self.rests = 0
        self.notes = Notes(lambda _: None)
        self.recorder = LmRecorder(self.notes, constrained=True)
        self.machine = SimpleNamespace(plan=PLAN, model="tiny", card=simulated_card(4))

    def generate(self, request: Request) -> Result:
        self.made.append(request)
        if (error := self.errors.get((request.duration_s, request.batch))) is not None:
            raise error
        stage = StageReport(
            name="denoise", seconds=0.5, songs_per_pass=1, peak_allocated_bytes=7, peak_reserved_bytes=9
        )
        return Result(
            request=request, songs=(), stages=(stage,), songs_per_pass=1, decode_path=DecodePath.GPU, warnings=()
        )

    def rest(self) -> None:
        self.rests += 1


def tried(
    durations_s: Sequence[float] = (1.0, 2.0), batches: Sequence[int] = (1,), **more: Any
) -> tuple[MatrixCell, ...]:
    return cells(
        SONG,
        Axes(durations_s=tuple(durations_s), batches=tuple(batches), **{"thinking": (False,), "steps": (3, 4), **more}),
        PLAN,
        thinks=True,
    )


def run(session: FakeSession, asked: tuple[MatrixCell, ...], *, warm: bool = False) -> tuple[Benchmark, list[str]]:
    lines: list[str] = []
    return benchmark(session, asked, warm=warm, advance=lines.append), lines


@pytest.mark.parametrize(
    "error", [RunFailedError("no memory"), torch.OutOfMemoryError("no memory"), RuntimeError("no memory\nat all")]
)
def test_a_cell_that_fails_is_a_row_and_the_others_go_on(error: Exception) -> None:
    session = FakeSession({(1.0, 1): error})
    found, lines = run(session, tried())
    assert [row.error for row in found.results] == ["no memory", "no memory", "", ""]
    assert len(lines) == 4
    assert session.rests == 2
    assert found.complete


def test_an_interrupt_keeps_the_rows_so_far() -> None:
    found, _ = run(FakeSession({(2.0, 1): KeyboardInterrupt()}), tried())
    assert [row.duration_s for row in found.results] == [1.0, 1.0]
    assert not found.complete


def test_each_length_and_batch_is_warmed_up_once_and_thinking_once() -> None:
    session = FakeSession()
    run(session, tried(batches=(1,), thinking=(False, True)), warm=True)
    warm_ups = [(made.duration_s, made.think) for made in session.made if made.steps == 1]
    assert warm_ups == [(1.0, False), (2.0, False), (1.0, True)]
    assert len(session.made) == len(warm_ups) + 8


def test_without_a_warm_up_every_cell_runs_once() -> None:
    session = FakeSession()
    asked = tried()
    run(session, asked)
    assert session.made == [cell.request for cell in asked]


def test_the_csv_has_a_line_for_each_row_and_a_column_for_each_stage() -> None:
    found, _ = run(FakeSession({(2.0, 1): RunFailedError('a "quoted", sentence')}), tried())
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(float(line["duration_s"]), line["error"]) for line in lines] == [
        (row.duration_s, row.error) for row in found.results
    ]
    assert all(f"{stage}_seconds" in lines[0] for stage in Stage)
    assert float(lines[0]["denoise_seconds"]) == 0.5
    assert set(lines[0]) >= set(MatrixRow.__struct_fields__) - {"stage_seconds", "warnings"}


def test_the_document_can_be_read_back() -> None:
    found, _ = run(FakeSession({(2.0, 1): RunFailedError("no")}), tried())
    assert msgspec.json.decode(pretty_json(found), type=Benchmark) == found
