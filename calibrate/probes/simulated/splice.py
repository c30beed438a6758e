"""Cuts and joins traces, so that the common part of two runs is traced once."""

from array import array
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from calibrate.probes.simulated.trace import BEGIN, EMPTY, END, FREE, Trace


def before(trace: Trace, stage: str) -> Trace:
    """Everything up to the beginning of a stage."""
    number = trace.stage_names.index(stage)
    sizes, slots = _events(trace)
    stop = int(np.flatnonzero((sizes == BEGIN) & (slots == number))[0])
    return _part(trace, 0, stop, trace.stage_names[:number])


def only(trace: Trace, stage: str) -> Trace:
    """One stage of a trace that has no other, from its `BEGIN` to its `END`."""
    sizes, _ = _events(trace)
    start, stop = np.flatnonzero((sizes == BEGIN) | (sizes == END)).tolist()
    return _part(trace, start, stop + 1, [stage])


def joined(first: Trace, second: Trace) -> Trace:
    """Both in a row; the second has slots and stages of its own."""
    whole = Trace()
    whole.stage_names = first.stage_names + second.stage_names
    whole.owner_names = first.owner_names + [name for name in second.owner_names if name not in first.owner_names]
    whole.n_slots = first.n_slots + second.n_slots
    sizes, slots = _events(second)
    of_stages = (sizes == BEGIN) | (sizes == END)
    slots = slots + np.where(sizes >= FREE, first.n_slots, np.where(of_stages, len(first.stage_names), 0))
    numbers = np.array([whole.owner_names.index(name) for name in second.owner_names], dtype=np.int16)
    owners = numbers[np.array(second.owners, dtype=np.int64)]
    whole.sizes = first.sizes + second.sizes
    whole.slots = first.slots + array("q", slots.tobytes())
    whole.owners = first.owners + array("h", owners.tobytes())
    return whole


def repeated(trace: Trace, start: int, stop: int, times: int) -> Trace:
    """Return the trace with the events from `start` up to `stop`, which leave nothing alive, repeated several times."""
    whole = _part(trace, 0, len(trace), trace.stage_names)
    for column in (whole.sizes, whole.slots, whole.owners):
        column[start:stop] = column[start:stop] * times
    return whole


def held(trace: Trace) -> Trace:
    """Return a trace that only allocates what is alive at the end of `trace`, in the same order."""
    alone = Trace()
    for _, size, owner in _alive(trace, len(trace)):
        alone.alloc(size, owner)
    return alone


def evicted(trace: Trace, at: int, spared: Collection[str]) -> Trace:
    """Return the trace with all but the `spared` owners' allocations freed, and the cache flushed, before event `at`.

    What is freed here must not be freed again later in the trace.
    """
    freed = [slot for slot, _, owner in _alive(trace, at) if owner not in spared]
    whole = _part(trace, 0, len(trace), trace.stage_names)
    whole.sizes[at:at] = array("q", [FREE] * len(freed) + [EMPTY])
    whole.slots[at:at] = array("q", [*freed, 0])
    whole.owners[at:at] = array("h", [0] * (len(freed) + 1))
    return whole


def _alive(trace: Trace, at: int) -> list[tuple[int, int, str]]:
    """Return (slot, bytes, owner) of what is alive before an event, in order of allocation."""
    alive: dict[int, tuple[int, str]] = {}
    for size, slot, owner in zip(trace.sizes[:at], trace.slots[:at], trace.owners[:at], strict=True):
        if size >= 0:
            alive[slot] = (size, trace.owner_names[owner])
        elif size == FREE:
            del alive[slot]
    return [(slot, size, owner) for slot, (size, owner) in alive.items()]


def _part(trace: Trace, start: int, stop: int, stage_names: list[str]) -> Trace:
    part = Trace()
    part.sizes, part.slots, part.owners = trace.sizes[start:stop], trace.slots[start:stop], trace.owners[start:stop]
    part.stage_names, part.owner_names, part.n_slots = stage_names, trace.owner_names, trace.n_slots
    return part


def _events(trace: Trace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array(trace.sizes, dtype=np.int64), np.array(trace.slots, dtype=np.int64)
