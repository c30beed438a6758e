"""The budgets of cards: what promises count on, by system and by the size of a card."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Annotated

import msgspec

from acestep.units import GIB


class System(StrEnum):
    """The operating systems with promises of their own; every other one is promised what Linux is."""

    LINUX = "linux"
    WINDOWS = "windows"

    @classmethod
    def here(cls) -> "System":
        """The system of this machine."""
        return cls.WINDOWS if sys.platform == "win32" else cls.LINUX


class SystemBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bytes that promises count on, on a card of one nameplate under one system."""

    system: System
    nameplate_gib: Annotated[float, msgspec.Meta(gt=0)]
    n_bytes: Annotated[int, msgspec.Meta(ge=0)]


def room_between(budgets: Sequence[SystemBudget], nameplate_gib: float) -> int:
    """Return the bytes that promises may count on, on a card of a nameplate; 0 without budgets.

    They are those of the first system. Between two certified sizes they are in proportion; a smaller card lacks all
    that it is smaller, and a larger one has the largest one's share of its size.
    """
    points = [(one.nameplate_gib * GIB, one.n_bytes) for one in budgets if one.system is budgets[0].system]
    size = nameplate_gib * GIB
    if not points:
        return 0
    (least, of_least), (most, of_most) = points[0], points[-1]
    if size <= least:
        return max(0, int(of_least - (least - size)))
    if size >= most:
        return int(size * of_most / most)
    (below, of_below), (above, of_above) = next(pair for pair in pairwise(points) if size <= pair[1][0])
    return int(of_below + (of_above - of_below) * (size - below) / (above - below))
