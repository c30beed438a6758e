"""The requests of a run to the device's memory, in order: the input of every replay under a cap.

Sizes are rounded up to 512 bytes, as the allocator rounds a request. An allocator's block can be larger, by up to 1 MiB
that is not split off a large block. So the peaks found here are a lower bound of an allocator's `peak_allocated`,
whatever the cap, and no smaller cap can fit.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibrate.probes.simulated.allocator import MIN_BLOCK

if TYPE_CHECKING:
    from calibrate.probes.simulated.region_events import RegionEvents

FREE: Final = -1
BEGIN: Final = -2
END: Final = -3
EMPTY: Final = -4
ASK: Final = -5
"""The values in `Trace.sizes` for events that are not allocations."""

ACTIVATIONS: Final = "activations"
"""Owner of everything that is computed rather than moved."""

ALLOWANCE: Final = "cudnn"
"""Owner of workspaces that the tensor count does not include; they count towards caps, not towards allocated peaks."""

WORKSPACE: Final = "cublas"
"""Owner of the matrix-product workspace, which stays until the process ends."""

NO_PARTS: Final = frozenset({ALLOWANCE, WORKSPACE, ACTIVATIONS, "prompt", "noise", "latents", "audio"})
"""Owners of allocations that are not weights."""


FEW_EVENTS: Final = 16
"""So few are recorded one by one in less time than all at once."""


class Trace:
    """Events in order: `sizes` says what happened (bytes of an allocation, or a code), `slots` to which allocation.

    A slot is the id of a live allocation; once freed, it goes to a later allocation, the lowest free slot first. So a
    loop whose iterations allocate alike repeats its events exactly, and a replay can skip most of it. For `BEGIN` and
    `END` the slot is an index into `stage_names`. `owners` are indices into `owner_names`.
    """

    def __init__(self) -> None:
        self.sizes = array("q")
        self.slots = array("q")
        self.owners = array("h")
        self.stage_names: list[str] = []
        self.owner_names: list[str] = []
        self.n_slots = 0
        self._owner_numbers: dict[str, int] = {}
        self._live: set[int] = set()
        # Negative and in order, so that the lowest free slot is the last: taking it is cheap.
        self._free_slots: list[int] = []
        self._open_stage: int | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def alloc(self, n_bytes: int, owner: str = ACTIVATIONS) -> int:
        """Record an allocation of `owner`; its id is valid until it is freed."""
        if n_bytes < 0:
            raise ValueError(f"an allocation of {n_bytes} bytes: a size cannot be negative")
        if self._free_slots:
            slot = -self._free_slots.pop()
        else:
            slot = self.n_slots
            self.n_slots += 1
        self._live.add(slot)
        self._record(n_bytes, slot, self._owner_number(owner))
        return slot

    def free(self, slot: int) -> None:
        """Record that an allocation was freed. Raises `ValueError` for an id that is not live."""
        if slot not in self._live:
            raise ValueError(f"free of allocation {slot}, which is not live: it was freed before or never made")
        self._live.remove(slot)
        insort(self._free_slots, -slot)
        self._record(FREE, slot)

    def play(self, recording: "RegionEvents") -> dict[int, int]:
        """Record all events of a region again, in one go; return the ids of its blocks that are still alive.

        The region never has more blocks than its width at once, and frees only its own. So it takes the lowest free
        slots in the order in which it would take those of an empty trace.
        """
        if len(recording.events) < FEW_EVENTS:
            return recording.onto(self)
        columns = recording.columns
        free = self._free_slots
        if (more := columns.width - len(free)) > 0:
            free[:0] = range(1 - self.n_slots - more, 1 - self.n_slots)
            self.n_slots += more
        lowest = np.array(free[len(free) - columns.width :][::-1], dtype=np.int64)
        numbers = np.array([self._owner_number(name) for name in columns.owner_names], dtype=np.int16)
        self.sizes.frombytes(columns.sizes.tobytes())
        self.slots.frombytes((-lowest[columns.slots]).tobytes())
        # The event of a free has no owner, which is 0.
        self.owners.frombytes(np.where(columns.sizes >= 0, numbers[columns.owners], 0).astype(np.int16).tobytes())
        alive = {block: -int(lowest[slot]) for block, slot in columns.alive.items()}
        for slot in alive.values():
            self._live.add(slot)
            del free[bisect_left(free, -slot)]
        return alive

    def begin_stage(self, name: str) -> None:
        """Open a stage. Stages do not nest, and a trace contains a name once."""
        if self._open_stage is not None:
            raise ValueError(f"stage {name!r} begins inside {self.stage_names[self._open_stage]!r}: end that first")
        if name in self.stage_names:
            raise ValueError(f"stage {name!r} begins a second time: give every stage of a trace a name of its own")
        self._open_stage = len(self.stage_names)
        self.stage_names.append(name)
        self._record(BEGIN, self._open_stage)

    def end_stage(self) -> None:
        """Close the open stage."""
        if self._open_stage is None:
            raise ValueError("end_stage() with no stage open: call begin_stage() first")
        self._record(END, self._open_stage)
        self._open_stage = None

    def empty_cache(self) -> None:
        """Record that wholly free segments were returned to the card."""
        self._record(EMPTY, 0)

    def ask(self) -> None:
        """Record that the run asked for the free bytes: under another cap it may have continued differently."""
        self._record(ASK, 0)

    def _owner_number(self, owner: str) -> int:
        number = self._owner_numbers.get(owner)
        if number is None:
            number = self._owner_numbers[owner] = len(self.owner_names)
            self.owner_names.append(owner)
        return number

    def _record(self, size: int, slot: int, owner: int = 0) -> None:
        self.sizes.append(size)
        self.slots.append(slot)
        self.owners.append(owner)


class StageSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stage lies: from its `BEGIN` event up to but not including its `END`, or the end of the trace."""

    name: str
    start: int
    stop: int


class StageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage held, in bytes; the maps go from an owner to its share and leave out zeros.

    `highest` is each owner's own peak, which need not be at the time of the stage's peak.
    """

    name: str
    peak_bytes: int
    live_at_start: dict[str, int]
    live_at_peak: dict[str, int]
    highest: dict[str, int]


class _Flow(NamedTuple):
    """For each event the change of live bytes and their owner (for a free, the owner of its allocation)."""

    change: NDArray[np.int64]
    owner: NDArray[np.int64]


class _Changes(NamedTuple):
    """The events of one owner, and what it held after each of them."""

    events: NDArray[np.int64]
    held: NDArray[np.int64]

    def after(self, event: int) -> int:
        """What it held after any event."""
        before = int(np.searchsorted(self.events, event, side="right"))
        return int(self.held[before - 1]) if before else 0

    def highest(self, start: int, stop: int) -> int:
        """The most that it held after an event from `start` up to, not including, `stop`."""
        first, last = np.searchsorted(self.events, (start, stop)).tolist()
        return max(self.after(start), int(self.held[first:last].max(initial=0)))


def _changes_of(flow: _Flow, owner: int) -> _Changes:
    events = np.flatnonzero(flow.owner == owner)
    return _Changes(events, np.cumsum(flow.change[events]))


def stages(trace: Trace) -> tuple[StageSpan, ...]:
    """The stages in the order they ran; one cut short by an error ends with the trace."""
    sizes = np.array(trace.sizes, dtype=np.int64)
    starts = np.flatnonzero(sizes == BEGIN).tolist()
    stops = [*np.flatnonzero(sizes == END).tolist(), len(sizes)]
    return tuple(
        StageSpan(name=name, start=start, stop=stop)
        for name, start, stop in zip(trace.stage_names, starts, stops, strict=False)
    )


def stage_usage(trace: Trace, uncounted: Collection[str] = ()) -> tuple[StageUsage, ...]:
    """Return for each stage the first peak of live bytes and its parts, without allocations of `uncounted` owners."""
    flow = _flow(trace)
    left_out = [number for number, name in enumerate(trace.owner_names) if name in uncounted]
    live = np.cumsum(np.where(np.isin(flow.owner, left_out), 0, flow.change))
    by_owner = {name: _changes_of(flow, number) for number, name in enumerate(trace.owner_names)}

    def shares(event: int) -> dict[str, int]:
        held = {name: own.after(event) for name, own in by_owner.items()}
        return {name: n_bytes for name, n_bytes in held.items() if n_bytes and name not in uncounted}

    usages = []
    for stage in stages(trace):
        window = slice(stage.start, stage.stop)
        peak_at = stage.start + int(np.argmax(live[window]))
        highest = {name: own.highest(stage.start, stage.stop) for name, own in by_owner.items()}
        usages.append(
            StageUsage(
                name=stage.name,
                peak_bytes=int(live[peak_at]),
                live_at_start=shares(stage.start),
                live_at_peak=shares(peak_at),
                highest={name: n_bytes for name, n_bytes in highest.items() if n_bytes},
            )
        )
    return tuple(usages)


def peak_bytes(trace: Trace) -> int:
    """Return the largest number of bytes alive at the same time, in or between stages, of all owners."""
    return int(np.cumsum(_flow(trace).change).max(initial=0))


def stage_trace(trace: Trace, name: str) -> Trace:
    """Return one stage as if it ran alone: what was live when it began, allocated in the same order, then its events.

    So the stage starts without the gaps that earlier stages left in the cache. Raises `KeyError` for an unknown name.
    """
    stage = next((s for s in stages(trace) if s.name == name), None)
    if stage is None:
        raise KeyError(f"no stage {name!r} in a trace of {', '.join(trace.stage_names) or 'no stages'}")
    until = slice(stage.stop)
    events = list(zip(trace.sizes[until], trace.slots[until], trace.owners[until], strict=True))
    names = trace.owner_names
    held: dict[int, tuple[int, str]] = {}
    for size, slot, owner in events[: stage.start]:
        if size >= 0:
            held[slot] = (size, names[owner])
        elif size == FREE:
            del held[slot]
    alone = Trace()
    # A dict keeps the order of insertion, and a freed slot is removed: so this is the order of allocation.
    ids = {slot: alone.alloc(size, owner) for slot, (size, owner) in held.items()}
    alone.begin_stage(name)
    for size, slot, owner in events[stage.start + 1 :]:
        if size >= 0:
            ids[slot] = alone.alloc(size, names[owner])
        elif size == FREE:
            alone.free(ids.pop(slot))
        elif size == ASK:
            alone.ask()
        else:
            alone.empty_cache()
    alone.end_stage()
    return alone


def _flow(trace: Trace) -> _Flow:
    sizes = np.array(trace.sizes, dtype=np.int64)
    owner = np.array(trace.owners, dtype=np.int64)
    change = np.where(sizes > 0, (sizes + MIN_BLOCK - 1) // MIN_BLOCK * MIN_BLOCK, 0)
    moves = np.flatnonzero(sizes >= FREE)
    # In one slot allocations and frees alternate, so sorted by slot each free comes directly after its allocation.
    by_slot = moves[np.argsort(np.array(trace.slots, dtype=np.int64)[moves], kind="stable")]
    frees = np.flatnonzero(sizes[by_slot] == FREE)
    freed, made = by_slot[frees], by_slot[frees - 1]
    change[freed] = -change[made]
    owner[freed] = owner[made]
    return _Flow(change, owner)
