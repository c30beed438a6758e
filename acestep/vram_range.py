"""A range of nameplates, and the rule that the ranges of tiers leave no gap."""

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec


class VramRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of nameplates in GiB; an `upper` of None has no end."""

    lower: float
    lower_inclusive: bool
    upper: float | None
    upper_inclusive: bool | None

    def __post_init__(self) -> None:
        if (self.upper is None) != (self.upper_inclusive is None):
            raise ValueError("vram_gib: upper and upper_inclusive must both be null or neither")
        if not (math.isfinite(self.lower) and self.lower >= 0):
            raise ValueError(f"vram_gib: lower must be 0 or more, got {self.lower}")
        if self.upper is not None and not (math.isfinite(self.upper) and self.upper > self.lower):
            raise ValueError(f"vram_gib: upper must be above lower ({self.lower:g}), got {self.upper}")

    def __contains__(self, nameplate_gib: float) -> bool:
        above = nameplate_gib >= self.lower if self.lower_inclusive else nameplate_gib > self.lower
        if self.upper is None:
            return above
        return above and (nameplate_gib <= self.upper if self.upper_inclusive else nameplate_gib < self.upper)


def require_tiling(tiers: Sequence[tuple[str, VramRange]]) -> None:
    """Raise `ValueError` unless every nameplate from 0 up is in exactly one of the named ranges, in order."""
    ids = [tier_id for tier_id, _ in tiers]
    if len(set(ids)) != len(ids):
        raise ValueError(f"tiers must have different ids, got {ids}")
    first, last = tiers[0][1], tiers[-1][1]
    if (first.lower, first.lower_inclusive) != (0, True) or last.upper is not None:
        raise ValueError("tiers must begin at 0 GiB, inclusive, and the last must have no upper bound")
    for (_, below), (tier_id, above) in pairwise(tiers):
        if below.upper != above.lower or below.upper_inclusive == above.lower_inclusive:
            raise ValueError(f"tiers must touch without overlap: {tier_id} does not begin where the one before ends")
