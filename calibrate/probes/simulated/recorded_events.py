"""The allocations and frees of one call, recorded once and written into traces many times."""

from array import array
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrate.probes.simulated.trace import FREE, Trace


class Event(NamedTuple):
    """One allocation (`n_bytes` >= 0) or free (`n_bytes` < 0) of a region; a block is numbered by its allocation."""

    block: int
    n_bytes: int
    owner: str


class _Ranked(NamedTuple):
    """Events with blocks as ranks among the free slots, the lowest first: so they fit any trace.

    `alive` has the block and the rank of what is not freed. `owners` are indices into `names`, 0 for a free.
    """

    sizes: "array[int]"
    ranks: NDArray[np.int64]
    owners: NDArray[np.int64]
    names: tuple[str, ...]
    most: int
    alive: dict[int, int]


class RecordedEvents:
    """Events that free only what they allocate. Two with equal events are equal."""

    __slots__ = ("_ranked", "events")

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = tuple(events)
        self._ranked: _Ranked | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedEvents) and self.events == other.events

    def __hash__(self) -> int:
        return hash(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def write(self, trace: Trace) -> dict[int, int]:
        """Write the events at the end of a trace, as `alloc` and `free` would; return the slots of what stays alive.

        The lowest free slot is always taken. So which of the free slots an event gets, counted from the lowest, is the
        same in every trace.
        """
        ranked = self._ranked
        if ranked is None:
            ranked = self._ranked = _ranked(self.events)
        slots = trace.take_slots(ranked.most)
        numbers = np.array([0, *map(trace.owner_number, ranked.names)], dtype=np.int16)
        trace.sizes.extend(ranked.sizes)
        trace.slots.frombytes(np.array(slots, dtype=np.int64)[ranked.ranks].tobytes())
        trace.owners.frombytes(numbers[ranked.owners].tobytes())
        kept = set(ranked.alive.values())
        trace.give_slots_back(slot for rank, slot in enumerate(slots) if rank not in kept)
        return {block: slots[rank] for block, rank in ranked.alive.items()}


def _ranked(events: tuple[Event, ...]) -> _Ranked:
    alive: dict[int, int] = {}
    names: dict[str, int] = {}
    free: list[int] = []
    sizes, ranks, owners = array("q"), [], []
    most = 0
    for block, n_bytes, owner in events:
        if n_bytes >= 0:
            if free:
                rank = heappop(free)
            else:
                rank, most = most, most + 1
            alive[block] = rank
            owners.append(names.setdefault(owner, len(names) + 1))
        else:
            rank = alive.pop(block)
            heappush(free, rank)
            owners.append(0)
        sizes.append(n_bytes if n_bytes >= 0 else FREE)
        ranks.append(rank)
    return _Ranked(sizes, np.array(ranks, dtype=np.int64), np.array(owners, dtype=np.int64), tuple(names), most, alive)
