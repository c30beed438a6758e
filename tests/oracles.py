"""Cards for the boundary search that are formulas with a known answer, seeded, at times out of memory by mistake."""

import random
from collections.abc import Callable, Sequence

import msgspec

from acestep.units import GIB, MIB
from calibrate.search import (
    WORST_SPURIOUS_RATE,
    Certainty,
    Found,
    PointResult,
    SearchPoints,
    find_boundary,
)

GRIDS = (4, 10, 60, 592)
"""Batches, whole minutes, ten-second steps, and single seconds."""


def most_points(length: int) -> int:
    """The largest number of points that a search of a line may ask."""
    return 2 * (length - 1).bit_length() + 4


def growing(predicted: Sequence[int], cap_bytes: int) -> SearchPoints:
    """Ever longer songs, or ever larger batches, under one cap."""
    return SearchPoints(caps=[cap_bytes] * len(predicted), predicted=predicted)


def shrinking(caps: Sequence[int], predicted_bytes: int) -> SearchPoints:
    """One run under ever smaller caps."""
    return SearchPoints(caps=caps, predicted=[predicted_bytes] * len(caps))


class Oracle(msgspec.Struct, frozen=True, kw_only=True):
    """What every point needs, what a simulation had predicted, and how often a fit ends out of memory by mistake."""

    line: SearchPoints
    needs: Sequence[int]
    spurious_rate: float
    seed: int

    @property
    def fitting(self) -> int:
        """How many points fit before the first that does not."""
        return next((p for p, need in enumerate(self.needs) if need > self.line.caps[p]), len(self.needs))

    def fits(self, point: int) -> bool:
        """Whether a point fits."""
        return self.needs[point] <= self.line.caps[point]

    def asker(self) -> Callable[[int], PointResult]:
        """A function that answers as this card does, the same way every time one is made."""
        chance = random.Random(self.seed)  # noqa: S311 a test's dice

        def ask(point: int) -> PointResult:
            fits = self.fits(point) and chance.random() >= self.spurious_rate
            return PointResult(fits=fits, peak_bytes=self.needs[point] if fits else 0)

        return ask


def oracle(seed: int, *, spurious_rate: float = 0.0, prior_error: float = 0.1, pocket: bool = False) -> Oracle:
    """A card drawn by a seed: linear, stepped or plateau growth under a cap, or one run under ever smaller caps.

    The prediction is off by at most `prior_error` everywhere, in its constant part and in its growth apart. A `pocket`
    is a stretch of failures among points that fit, as fragmentation leaves.
    """
    dice = random.Random(seed)  # noqa: S311 a test's dice
    if dice.random() < 0.25:
        step = dice.choice((2, 16, 64)) * MIB
        need = dice.randint(1 * GIB, 12 * GIB)
        caps = range(24 * GIB, 512 * MIB, -step)
        predicted = int(need * (1 + dice.uniform(-prior_error, prior_error)))
        return _dented(shrinking(caps, predicted), [need] * len(caps), spurious_rate, seed, dice, pocket)
    length = dice.choice(GRIDS)
    fixed, growth = dice.randint(1 * GIB, 8 * GIB), dice.randint(64 * MIB, 8 * GIB)
    shape = dice.choice((_linear, _stepped, _plateau))
    off_fixed, off_growth = (1 + dice.uniform(-prior_error, prior_error) for _ in range(2))
    needs = shape(length, fixed, growth)
    predicted = [int(x) for x in shape(length, fixed * off_fixed, growth * off_growth)]
    cap = fixed + int(growth * dice.uniform(-0.1, 1.15))
    return _dented(growing(predicted, cap), [int(x) for x in needs], spurious_rate, seed, dice, pocket)


def _linear(length: int, fixed: float, growth: float) -> list[float]:
    return [fixed + growth * p / length for p in range(length)]


def _stepped(length: int, fixed: float, growth: float) -> list[float]:
    return [fixed + growth * (p * 8 // length) / 8 for p in range(length)]


def _plateau(length: int, fixed: float, growth: float) -> list[float]:
    return [fixed + growth * max(0.0, p / length - 0.4) for p in range(length)]


def _dented(
    line: SearchPoints, needs: list[int], spurious_rate: float, seed: int, dice: random.Random, pocket: bool
) -> Oracle:
    plain = Oracle(line=line, needs=needs, spurious_rate=spurious_rate, seed=seed)
    if pocket and plain.fitting > 2:
        start = dice.randrange(1, plain.fitting - 1)
        for point in range(start, min(start + dice.randint(1, 3), plain.fitting - 1)):
            needs[point] = line.caps[point] + 1
    return plain


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What many searches came to; `false_proofs` are boundaries whose own two points say otherwise.

    `unreported` are searches that saw a fit behind a failure and did not say so.
    """

    wrong: int
    too_long: int
    uncertain: int
    false_proofs: int
    unreported: int
    mean_points: float
    mean_probes: float


def survey(seeds: Sequence[int], *, spurious_rate: float, prior_error: float, pocket: bool = False) -> Survey:
    """Search once per seed; a search assumes the worst rate wherever its card errs at all."""
    found = [
        _searched(oracle(seed, spurious_rate=spurious_rate, prior_error=prior_error, pocket=pocket)) for seed in seeds
    ]
    return Survey(
        wrong=sum(one.fitting != drawn.fitting for drawn, one, _ in found),
        too_long=sum(len(set(asked)) > most_points(len(drawn.needs)) for drawn, _, asked in found),
        uncertain=sum(one.certainty is Certainty.UNCERTAIN for _, one, _ in found),
        false_proofs=sum(not _proven(drawn, one.fitting) for drawn, one, _ in found),
        unreported=sum(
            _contradicts(drawn, set(asked)) and one.certainty is Certainty.CERTIFIED for drawn, one, asked in found
        ),
        mean_points=sum(len(set(asked)) for _, _, asked in found) / len(found),
        mean_probes=sum(len(asked) for _, _, asked in found) / len(found),
    )


def _searched(drawn: Oracle) -> tuple[Oracle, Found, list[int]]:
    """A card, its boundary, and every point in the order in which it was asked."""
    asked: list[int] = []
    answer = drawn.asker()

    def ask(point: int) -> PointResult:
        asked.append(point)
        return answer(point)

    return drawn, find_boundary(drawn.line, ask, WORST_SPURIOUS_RATE if drawn.spurious_rate else 0.0), asked


def _proven(drawn: Oracle, fitting: int) -> bool:
    last_fits = fitting == 0 or drawn.fits(fitting - 1)
    return last_fits and (fitting == len(drawn.needs) or not drawn.fits(fitting))


def _contradicts(drawn: Oracle, seen: set[int]) -> bool:
    """Whether some point that was asked fails before another one that fits."""
    failed = [point for point in seen if not drawn.fits(point)]
    return bool(failed) and any(drawn.fits(point) for point in seen if point > min(failed))
