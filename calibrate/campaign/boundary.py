"""Finds the longest song of a batch that fits, in few runs: combines a boundary search with forecasts of memory."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from acestep.knobs import Knobs, Offload
from acestep.stage import Stage
from calibrate.executors.questions import Question
from calibrate.record.measurement import RecordedProbe
from calibrate.search import WORST_SPURIOUS_RATE, Certainty, Found, PointResult, SearchPoints, find_boundary
from calibrate.table.knobs import without_lm
from calibrate.workload import Workload

Look = Callable[[Question], RecordedProbe]
"""Returns the recorded probe that answers a question."""

Forecast = Callable[[Knobs, Workload], int]
"""Predicts the bytes that a run needs before it is made; 0 if unknown."""

GROWING: Final = Stage.DENOISE
"""The stage that grows with batch and length alike."""


def no_forecast(knobs: Knobs, workload: Workload) -> int:  # noqa: ARG001 a Forecast's arguments
    """The forecast that knows nothing: 0."""
    return 0


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How often a card reports out of memory although the run fits, and the forecast of runs."""

    spurious_rate: float = WORST_SPURIOUS_RATE
    forecast: Forecast = no_forecast


SIMULATED: Final = Method(spurious_rate=0.0)
"""A simulated card is never wrong."""


class Boundary(msgspec.Struct, frozen=True, kw_only=True):
    """The longest song of a batch: every question asked, and the last question on each side, if there is one.

    `seconds` is 0 if nothing fits, and if the answers contradict each other, because then they prove nothing.
    """

    seconds: int
    certainty: Certainty
    asked: tuple[Question, ...]
    fits: Question | None
    fails: Question | None


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The measured or predicted bytes of a stage besides its `resting` weights, by songs x seconds."""

    stage: str
    resting: int
    seen: tuple[tuple[int, int], ...]

    def at(self, work: int) -> int:
        """Interpolate linearly between the two nearest values."""
        above = min(max(bisect_left(self.seen, (work,)), 1), len(self.seen) - 1)
        (less, low), (more, high) = self.seen[above - 1], self.seen[above]
        return max(low + max(high - low, 0) * (work - less) // (more - less), 1)


def find_longest(
    look: Look, question: Question, grid: Sequence[int], known: Sequence[RecordedProbe], method: Method
) -> Boundary:
    """Return how far along a grid, shortest song first, the knobs, batch and cap of a question fit.

    `known` are earlier answers under the same cap, in the order in which they were given.
    """
    asking = _Asking(look, question, grid)
    alike = [probe for probe in known if _denoises_alike(probe.knobs, question.knobs)]
    forecast = _forecast(question, grid, method.forecast)
    growth = forecast or _growth(GROWING, alike)
    last = len(grid) - 1

    def search(positions: range, growth: Growth | None) -> Found:
        return find_boundary(asking.line(positions, growth), asking.at(positions, growth), method.spurious_rate)

    if growth and growth.at(asking.work(last)) > question.cap_bytes - growth.resting:
        found = search(range(last + 1), growth)
    else:
        # Usually the longest song fits, or no song fits because the weights do not.
        found = search(range(last, last + 1), growth)
        fitting = last + found.fitting
        if not found.fitting and last:
            found = search(range(1), growth)
            fitting = found.fitting
            inside = forecast or asking.growth(alike, at=last)
            if found.fitting and last > 1 and inside:
                found = search(range(1, last), inside)
                fitting = 1 + found.fitting
            elif found.fitting:
                fitting = _halved(lambda place: bool(search(range(place, place + 1), None).fitting), last)
        found = msgspec.structs.replace(found, fitting=fitting)
    certain = found.certainty is Certainty.CERTIFIED
    return Boundary(
        seconds=grid[found.fitting - 1] if certain and found.fitting else 0,
        certainty=found.certainty,
        asked=tuple(asking.asked),
        fits=asking.last_of(found.fitting - 1) if certain else None,
        fails=asking.last_of(found.fitting),
    )


def _halved(fits: Callable[[int], bool], fails: int) -> int:
    """Return how many points fit; the first one does and `fails` does not, and those between are unknown."""
    low = 0
    while fails - low > 1:
        middle = (low + fails) // 2
        low, fails = (middle, fails) if fits(middle) else (low, middle)
    return fails


class _Asking:
    """The questions of one boundary, and how often each point of its grid was asked."""

    def __init__(self, look: Look, question: Question, grid: Sequence[int]) -> None:
        self.asked: list[Question] = []
        self._look = look
        self._question = question
        self._grid = grid
        self._last: dict[int, Question] = {}
        self._probes: dict[int, RecordedProbe] = {}

    def work(self, position: int) -> int:
        """Songs x seconds."""
        return self._question.workload.batch * self._grid[position]

    def line(self, positions: range, growth: Growth | None) -> SearchPoints:
        """Return the input of a search over some positions; without a prediction all of them are assumed to fit."""
        cap = self._question.cap_bytes
        if growth is None:
            return SearchPoints(caps=[cap] * len(positions), predicted=[cap] * len(positions))
        predicted = [growth.at(self.work(position)) for position in positions]
        return SearchPoints(caps=[max(cap - growth.resting, 1)] * len(positions), predicted=predicted)

    def at(self, positions: range, growth: Growth | None) -> Callable[[int], PointResult]:
        """Return a function that asks a point by its index among some positions."""
        stage, resting = (growth.stage, growth.resting) if growth else (GROWING, 0)

        def ask(place: int) -> PointResult:
            position = positions[place]
            attempt = self._last[position].attempt + 1 if position in self._last else 0
            workload = msgspec.structs.replace(self._question.workload, duration_s=float(self._grid[position]))
            question = msgspec.structs.replace(self._question, workload=workload, attempt=attempt)
            probe = self._look(question)
            self.asked.append(question)
            self._last[position], self._probes[position] = question, probe
            return PointResult(fits=probe.counts, peak_bytes=max(_needed(probe, stage) - resting, 0))

        return ask

    def growth(self, known: Sequence[RecordedProbe], *, at: int) -> Growth | None:
        """Return the growth of the stage that took most at a failed position, from all answers; None if unknown."""
        failed = self._probes[at]
        most = max((stage.name for stage in failed.stages), key=lambda name: _needed(failed, name), default=GROWING)
        same = [probe for probe in known if most == GROWING or probe.knobs == self._question.knobs]
        return _growth(most, [*same, *self._probes.values()])

    def last_of(self, position: int) -> Question | None:
        """The question that settled a position; None for one that was never asked."""
        return self._last.get(position)


def _denoises_alike(one: Knobs, other: Knobs) -> bool:
    """Return whether two runs denoise alike: if offload removes the language model, no trace of it remains."""
    if one.offload is Offload.NONE:
        return one == other
    return without_lm(one) == without_lm(other)


def _forecast(question: Question, grid: Sequence[int], forecast: Forecast) -> Growth | None:
    """Return the growth predicted from both ends of a grid; None without a prediction."""
    ends = sorted({grid[0], grid[-1]})
    predicted = [
        forecast(question.knobs, msgspec.structs.replace(question.workload, duration_s=float(seconds)))
        for seconds in ends
    ]
    seen = tuple((question.workload.batch * s, need) for s, need in zip(ends, predicted, strict=True))
    return Growth(stage=GROWING, resting=0, seen=seen) if all(predicted) and len(ends) > 1 else None


def _growth(stage: str, probes: Sequence[RecordedProbe]) -> Growth | None:
    """Return the measured growth of a stage; None if fewer than two runs finished it."""
    seen: dict[int, int] = {}
    resting = []
    for probe in probes:
        # For a stage that ran out of memory a real card reports the usage so far, which is not its full need.
        need = _needed(probe, stage)
        if need and (probe.counts or need > probe.cap_bytes):
            work = int(probe.workload.batch * probe.workload.duration_s)
            seen[work] = max(seen.get(work, 0), need)
            resting += [part.resident_bytes for part in probe.stages if part.name == stage]
    if len(seen) < 2:
        return None
    beside = tuple(sorted((work, need - min(resting)) for work, need in seen.items()))
    return Growth(stage=stage, resting=min(resting), seen=beside)


def _needed(probe: RecordedProbe, stage: str) -> int:
    return max((p.needed_bytes for p in probe.stages if p.name == stage), default=0)
