"""Loops in a trace: tiles, layers and steps with identical allocations, which a replay can skip."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from acestep.units import ceil_div
from calibrate.probes.simulated.trace import FREE, Trace

WINDOW: Final = 16
"""Events in one hash window for finding repetitions; a power of two."""

SCATTER: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd number with random-looking bits (2^64 over the golden ratio), to spread sizes over all bits of a hash."""

CANDIDATES: Final = 8
"""Distances tried as a period, the most frequent first; real traces have one or two."""

MIN_PERIOD: Final = 1024
"""Fewest events in one turn of a loop; short repetitions are combined.

Comparing two states of the allocator costs about as much as replaying this many events.
"""

MIN_TURNS: Final = 4
"""Fewest turns: fewer save almost nothing, because one turn, mostly two, must be played before a state can repeat."""


MIN_CLOSED_PERIOD: Final = 24
"""Fewest events in one turn of a closed loop, for which no states are compared."""

MIN_CLOSED_TURNS: Final = 2


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """`turns` repetitions of `period` identical events, from event `start` on.

    `closed`: a turn only allocates and frees, it frees all that it allocates, and nothing else.
    """

    start: int
    period: int
    turns: int
    closed: bool = False

    @property
    def stop(self) -> int:
        """The event after the last whole turn."""
        return self.start + self.period * self.turns

    @property
    def saved(self) -> int:
        """Events that need not be played: of a closed loop all but one turn, of others most."""
        return self.period * (self.turns - (1 if self.closed else 2))


def find_loops(trace: Trace) -> tuple[Loop, ...]:
    """Return loops in order, not overlapping; each is exact, but not every repetition of a trace is found."""
    sizes = np.array(trace.sizes, dtype=np.int64)
    slots = np.array(trace.slots, dtype=np.int64)
    found = [_loops_of_period(sizes, slots, period) for period in _likely_periods(sizes, slots)]
    found.sort(key=lambda loops: -sum(loop.saved for loop in loops))
    chosen: list[Loop] = []
    for loop in (loop for loops in found for loop in loops):
        if all(loop.stop <= other.start or other.stop <= loop.start for other in chosen):
            chosen.append(loop)
    return tuple(sorted(chosen, key=lambda loop: loop.start))


def _likely_periods(sizes: NDArray[np.int64], slots: NDArray[np.int64]) -> list[int]:
    """Return the most frequent distances between a window of events and the last one with the same hash."""
    hashes = sizes.view(np.uint64) * SCATTER ^ slots.view(np.uint64)
    width = 1
    while width < min(WINDOW, len(hashes)):
        hashes = (hashes[:-width] * SCATTER ^ hashes[width:]) * SCATTER
        width *= 2
    order = np.argsort(hashes, kind="stable")
    same = np.diff(hashes[order]) == 0
    distances, counts = np.unique(np.diff(order)[same], return_counts=True)
    return [int(d) for d in distances[np.argsort(-counts, kind="stable")][:CANDIDATES]]


def _loops_of_period(sizes: NDArray[np.int64], slots: NDArray[np.int64], period: int) -> list[Loop]:
    """Return every range that repeats itself exactly after `period` events, in turns of at least `MIN_PERIOD`."""
    repeats = (sizes[:-period] == sizes[period:]) & (slots[:-period] == slots[period:])
    edges = np.flatnonzero(np.diff(repeats.astype(np.int8), prepend=0, append=0)).tolist()
    loops = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        # The last turn is compared with none after it.
        loop = _closed_loop(sizes, slots, period, start, stop + period) or _loop(period, start, stop + period)
        if loop is not None:
            loops.append(loop)
    return loops


def _loop(period: int, start: int, stop: int) -> Loop | None:
    turn = period * ceil_div(MIN_PERIOD, period)
    turns = (stop - start) // turn
    return Loop(start=start, period=turn, turns=turns) if turns >= MIN_TURNS else None


def _closed_loop(sizes: NDArray[np.int64], slots: NDArray[np.int64], period: int, start: int, stop: int) -> Loop | None:
    """Return the loop whose turns begin where the fewest blocks are alive, if they are closed there."""
    if stop - start < 2 * period:
        return None
    alive = np.cumsum(np.where(sizes[start : start + period] == FREE, -1, 1))
    start += (int(np.argmin(alive)) + 1) % period
    turn = period * ceil_div(MIN_CLOSED_PERIOD, period)
    turns = (stop - start) // turn
    if (
        turns < MIN_CLOSED_TURNS
        or alive[-1]
        or not _is_closed(sizes[start : start + turn], slots[start : start + turn])
    ):
        return None
    return Loop(start=start, period=turn, turns=turns, closed=True)


def _is_closed(sizes: NDArray[np.int64], slots: NDArray[np.int64]) -> bool:
    """Whether some events are allocations and frees of the same blocks: in each slot one after the other, in turn."""
    if (sizes < FREE).any():
        return False
    by_slot = np.argsort(slots, kind="stable")
    frees = (sizes == FREE)[by_slot]
    return len(frees) % 2 == 0 and bool(
        frees[1::2].all() and not frees[::2].any() and (slots[by_slot[1::2]] == slots[by_slot[::2]]).all()
    )
