"""The boundary search: finds the last point of a line that fits, in as few probes as a proof allows.

It knows nothing about cards. A fit is proof. An out-of-memory error may be spurious (fragmentation, another program),
so a failure counts only after several in a row: so many that the worst card gives them by chance less than once in ten
million times. This needs independent answers: each must come from a run of its own, after caches were emptied.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

WORST_SPURIOUS_RATE = 0.05
"""The largest share of spurious out-of-memory errors for which the results are still right."""

CHANCE_OF_ERROR = 1e-7
"""Upper bound of the chance that all answers of one failing point were spurious."""

_FREE_AIMS = 3
"""Probes that follow the model before every other one halves the rest."""

_CAUTION = (0.05, 0.12, 0.3, 0.75)
"""Margin of the first probe above the prediction: a fit gives information, a failure does not. Grows with each failure.
"""

_SURPRISE = 0.02
"""How far below its cap the expected need of a point is when its failure is surprising, if there were measurements."""

_UNMEASURED_SURPRISE = 0.1
"""The same without measurements: the largest error of a simulation."""


class SearchPoints(msgspec.Struct, frozen=True, kw_only=True):
    """Points from the easiest to the hardest: the cap at each, and its predicted need in bytes."""

    caps: Sequence[int]
    predicted: Sequence[int]

    def __post_init__(self) -> None:
        if not 0 < len(self.caps) == len(self.predicted):
            raise ValueError(f"a line needs a prediction per cap, got {len(self.predicted)} for {len(self.caps)}")


class PointResult(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a point; `peak_bytes` is the measured need of a fit."""

    fits: bool
    peak_bytes: int


class Certainty(StrEnum):
    """The certainty of a boundary: whether everything before it fits, and nothing after it."""

    CERTIFIED = "certified"
    UNCERTAIN = "uncertain"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The first `fitting` points fit: the last of them and the one after it were probed, if they exist."""

    fitting: int
    certainty: Certainty


def failures_needed(spurious_rate: float) -> int:
    """Return how many failures in a row prove that a point does not fit."""
    if not 0 <= spurious_rate < 1:
        raise ValueError(f"a spurious rate is 0 or more and below 1, got {spurious_rate}")
    return 1 if spurious_rate == 0 else math.floor(math.log(CHANCE_OF_ERROR) / math.log(spurious_rate)) + 1


def find_boundary(
    line: SearchPoints, ask: Callable[[int], PointResult], spurious_rate: float = WORST_SPURIOUS_RATE
) -> Found:
    """Find where a line stops fitting; `ask` probes the point at a position.

    A card that is never wrong has a rate of 0. Every point before the boundary is assumed to fit, as the last one does.
    If a failure is surprising, a later point is asked too; if that fits, the boundary is the first of several and is
    called uncertain.
    """
    search = _Search(line, ask, failures_needed(spurious_rate))
    while search.fails - search.fits > 1:
        search.ask(search.next_point())
    certainty = Certainty.UNCERTAIN if search.fits_behind_boundary() else Certainty.CERTIFIED
    return Found(fitting=search.fails, certainty=certainty)


class _Search:
    """The state of a search: everything up to `fits` is assumed to fit, everything from `fails` on to fail."""

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
        """Return the model's boundary, or every other time the middle, which limits the number of points."""
        turn = len(self.answers) - _FREE_AIMS
        if turn >= 0 and turn % 2 == 0:
            return (self.fits + self.fails) // 2
        # The last point expected to fit, and once that is known the one after it.
        return max(self._expected_to_fail(self._caution()) - 1, self.fits + 1)

    def fits_behind_boundary(self) -> bool:
        """Return whether the failure at the boundary is surprising and a later point fits."""
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
        """Return the points with measured needs, from the easiest to the hardest."""
        return sorted(p for p, answer in self.answers.items() if answer.fits and answer.peak_bytes > 0)

    def _caution(self) -> float:
        if self._measured():
            return 0.1 * ((1 << self._lapses) - 1)
        return _CAUTION[min(self._lapses, len(_CAUTION) - 1)]

    def _expected_to_fail(self, caution: float) -> int:
        """Return the first point between the bounds that is expected to fail, or the upper bound."""
        inside = range(self.fits + 1, self.fails)
        return inside.start + bisect_left(inside, True, key=lambda p: self._expected(p, caution) > self._line.caps[p])

    def _last_expected_to_fit(self) -> int:
        behind = range(self.fails + 1, len(self._line.caps))
        return self.fails + bisect_left(behind, True, key=lambda p: self._expected(p, 0.0) > self._line.caps[p])

    def _expected(self, point: int, caution: float) -> float:
        """Return a point's expected bytes: the last measured need, scaled by the growth of the prediction."""
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
