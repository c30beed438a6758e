"""What a call did to the memory of a card, so that another call can do the same again without being computed."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from calibrate.probes.simulated.trace import Trace


class Event(NamedTuple):
    """One allocation (`n_bytes` >= 0) or free (`n_bytes` < 0) of a region; a block is numbered by its allocation."""

    block: int
    n_bytes: int
    owner: str


class Columns(NamedTuple):
    """The events as a trace keeps them, for an empty trace: `width` slots, and those of the blocks that stay alive."""

    sizes: NDArray[np.int64]
    slots: NDArray[np.int64]
    owners: NDArray[np.int16]
    owner_names: tuple[str, ...]
    width: int
    alive: dict[int, int]


class Taking(Protocol):
    """What can be told of allocations and frees."""

    def alloc(self, n_bytes: int, owner: str) -> int:
        """Return a number for the block."""
        ...

    def free(self, block: int) -> None:
        """Free the block with that number."""
        ...


class RegionEvents:
    """The events of a closed region: what is freed in it was allocated in it."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = tuple(events)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegionEvents) and self.events == other.events

    __hash__ = None  # type: ignore[assignment] # compared by its events, and never looked up

    def onto(self, sink: Taking) -> dict[int, int]:
        """Repeat the events one by one; return the sink's numbers of the blocks that are still alive.

        Undone if the sink refuses.
        """
        alloc, free = sink.alloc, sink.free
        alive: dict[int, int] = {}
        try:
            for block, n_bytes, owner in self.events:
                if n_bytes >= 0:
                    alive[block] = alloc(n_bytes, owner)
                else:
                    free(alive.pop(block))
        except BaseException:
            for block in alive.values():
                free(block)
            raise
        return alive

    @cached_property
    def columns(self) -> Columns:
        """Its columns, computed when a trace first repeats it."""
        alone = Trace()
        alive = self.onto(alone)
        return Columns(
            sizes=np.array(alone.sizes, dtype=np.int64),
            slots=np.array(alone.slots, dtype=np.int64),
            owners=np.array(alone.owners, dtype=np.int16),
            owner_names=tuple(alone.owner_names),
            width=alone.n_slots,
            alive=alive,
        )
