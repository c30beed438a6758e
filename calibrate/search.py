"""The boundary search: how far along a line of points everything still fits, in as few probes as the proof allows.

It knows nothing of cards. A fit is proof; an out-of-memory may be spurious (fragmentation, another program), so one
counts only after as many in a row as a card at its worst gives by chance less than once in ten million times. That
takes the answers of one point to be independent: each must come from a run of its own, after caches were emptied.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

WORST_SPURIOUS_RATE = 0.05
"""The largest share of probes that fit and yet end out of memory, that results stay right under."""

CHANCE_OF_ERROR = 1e-7
"""What the chance that all answers behind one failing point were spurious stays below."""

_FREE_AIMS = 3
"""Probes that go where the model points before every other one halves what is left."""

_CAUTION = (0.05, 0.12, 0.3, 0.75)
"""How much more than predicted a first probe allows for: a fit teaches, a failure does not. Grows with each failure."""

_SURPRISE = 0.02
"""How far below its cap a point is expected, by what was measured beside it, where its failure surprises."""

_UNMEASURED_SURPRISE = 0.1
"""The same where nothing was measured: as far off as a simulation may be."""


class SearchPoints(msgspec.Struct, frozen=True, kw_only=True):
    """Points from the easiest to the hardest: the cap at each, and the bytes that it is predicted to need."""

    caps: Sequence[int]
    predicted: Sequence[int]

    def __post_init__(self) -> None:
        if not 0 < len(self.caps) == len(self.predicted):
            raise ValueError(f"a line needs a prediction per cap, got {len(self.predicted)} for {len(self.caps)}")


class PointResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a point answered once; `peak_bytes` is what a fit was seen to need."""

    fits: bool
    peak_bytes: int


class Certainty(StrEnum):
    """Whether the answers agree that everything before the boundary fits and nothing after it."""

    CERTIFIED = "certified"
    UNCERTAIN = "uncertain"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The first `fitting` points fit: the last of them and the one after it were probed, where there are such."""

    fitting: int
    certainty: Certainty


def failures_needed(spurious_rate: float) -> int:
    """How many failures in a row prove that a point does not fit."""
    if not 0 <= spurious_rate < 1:
        raise ValueError(f"a spurious rate is 0 or more and below 1, got {spurious_rate}")
    return 1 if spurious_rate == 0 else math.floor(math.log(CHANCE_OF_ERROR) / math.log(spurious_rate)) + 1


def most_points(length: int) -> int:
    """The most points of a line that a search asks."""
    return 2 * (length - 1).bit_length() + 4


def find_boundary(
    line: SearchPoints, ask: Callable[[int], PointResult], spurious_rate: float = WORST_SPURIOUS_RATE
) -> Found:
    """Where a line stops fitting; `ask` probes the point at a position. A card that never errs has a rate of 0.

    Every point before the boundary is taken to fit, as the last one does. Where a failure surprises, a point behind it
    is asked too; if that fits, the boundary is the first of several and is called uncertain.
    """
    search = _Search(line, ask, failures_needed(spurious_rate))
    while search.fails - search.fits > 1:
        search.ask(search.next_point())
    certainty = Certainty.UNCERTAIN if search.fits_behind_boundary() else Certainty.CERTIFIED
    return Found(fitting=search.fails, certainty=certainty)


class _Search:
    """What is known so far: everything up to `fits` is taken to fit, everything from `fails` on to fail."""

    def __init__(self, line: SearchPoints, ask: Callable[[int], PointResult], failures: int) -> None:
        self.fits, self.fails = -1, len(line.caps)
        self.answers: dict[int, PointResult] = {}
        self._line = line
        self._ask = ask
        self._failures = failures
        self._lapses = 0

    def ask(self, point: int) -> None:
        """Ask a point until it fits or has failed often enough, and move the bracket."""
        if self._settle(point).fits:
            self.fits = point
        else:
            self.fails = point
            self._lapses += 1

    def next_point(self) -> int:
        """Where the model sees the boundary, or every other time the middle: that bounds the number of points."""
        turn = len(self.answers) - _FREE_AIMS
        if turn >= 0 and turn % 2 == 0:
            return (self.fits + self.fails) // 2
        # The last point expected to fit, and once that is known the one after it.
        return max(self._expected_to_fail(self._caution()) - 1, self.fits + 1)

    def fits_behind_boundary(self) -> bool:
        """Whether the failure at the boundary surprises and a point behind it fits after all."""
        if self.fails == len(self._line.caps):
            return False
        measured = bool(self._measured())
        margin = 1 + (_SURPRISE if measured else _UNMEASURED_SURPRISE)
        if self._expected(self.fails, 0.0) * margin > self._line.caps[self.fails]:
            return False
        behind = {self._last_expected_to_fit(): None, self.fails + 1: None}
        unasked = [p for p in behind if self.fails < p < len(self._line.caps) and p not in self.answers]
        return any(self._settle(point).fits for point in unasked)

    def _settle(self, point: int) -> PointResult:
        for _ in range(self._failures):
            answer = self._ask(point)
            self.answers[point] = answer
            if answer.fits:
                break
        return self.answers[point]

    def _measured(self) -> list[int]:
        """The points whose needs are known, from the easiest to the hardest."""
        return sorted(p for p, answer in self.answers.items() if answer.fits and answer.peak_bytes > 0)

    def _caution(self) -> float:
        if self._measured():
            return 0.1 * ((1 << self._lapses) - 1)
        return _CAUTION[min(self._lapses, len(_CAUTION) - 1)]

    def _expected_to_fail(self, caution: float) -> int:
        """The first point between the bounds that is expected to fail, or the upper bound."""
        inside = range(self.fits + 1, self.fails)
        return inside.start + bisect_left(inside, True, key=lambda p: self._expected(p, caution) > self._line.caps[p])

    def _last_expected_to_fit(self) -> int:
        behind = range(self.fails + 1, len(self._line.caps))
        return self.fails + bisect_left(behind, True, key=lambda p: self._expected(p, 0.0) > self._line.caps[p])

    def _expected(self, point: int, caution: float) -> float:
        """The bytes a point is expected to need: what was measured last, grown as the prediction grows from there."""
        predicted = self._line.predicted
        measured = self._measured()
        if not measured:
            return predicted[point] * (1 + caution)
        last = measured[-1]
        peak = self.answers[last].peak_bytes
        slope = peak / max(predicted[last], 1)
        if len(measured) > 1 and predicted[last] > predicted[measured[-2]]:
            rise = peak - self.answers[measured[-2]].peak_bytes
            slope = min(max(rise / (predicted[last] - predicted[measured[-2]]), slope / 2), slope * 2)
        return peak + (predicted[point] - predicted[last]) * slope * (1 + caution)
