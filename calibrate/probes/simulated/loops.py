"""Loops in a trace: tiles, layers and steps with identical allocations, which a replay can skip."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from acestep.units import ceil_div
from calibrate.probes.simulated.trace import Trace

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


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """`turns` repetitions of `period` identical events, from event `start` on."""

    start: int
    period: int
    turns: int

    @property
    def stop(self) -> int:
        """The event after the last whole turn."""
        return self.start + self.period * self.turns


def find_loops(trace: Trace) -> tuple[Loop, ...]:
    """Return loops in order, not overlapping; each is exact, but not every repetition of a trace is found."""
    sizes = np.array(trace.sizes, dtype=np.int64)
    slots = np.array(trace.slots, dtype=np.int64)
    found = [_loops_of_period(sizes, slots, period) for period in _likely_periods(sizes, slots)]
    found.sort(key=lambda loops: -sum(loop.period * (loop.turns - 2) for loop in loops))
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
    turn = period * ceil_div(MIN_PERIOD, period)
    loops = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        turns = (stop - start + period) // turn
        if turns >= MIN_TURNS:
            loops.append(Loop(start=start, period=turn, turns=turns))
    return loops
