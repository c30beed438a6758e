"""A trace repeats a recorded region in one go as it would event by event."""

from hypothesis import given
from hypothesis import strategies as st

from calibrate.probes.simulated.region_events import Event, RegionEvents
from calibrate.probes.simulated.trace import FEW_EVENTS, Trace

OPERATIONS = st.lists(st.integers(-20, 4000), max_size=3 * FEW_EVENTS)
"""Bytes to allocate; a negative number frees one of the live blocks."""

OWNERS = ("activations", "latents", "weights")


def recorded(operations: list[int]) -> RegionEvents:
    events: list[Event] = []
    live: list[int] = []
    for n_bytes in operations:
        if n_bytes >= 0:
            live.append(len(events))
            events.append(Event(len(events), n_bytes, OWNERS[n_bytes % len(OWNERS)]))
        elif live:
            events.append(Event(live.pop(n_bytes % len(live)), -1, ""))
    return RegionEvents(events)


def begun(operations: list[int]) -> tuple[Trace, list[int]]:
    """A trace whose free slots have gaps, and its live blocks."""
    trace = Trace()
    return trace, list(recorded(operations).onto(trace).values())


def state(trace: Trace) -> object:
    return trace.sizes, trace.slots, trace.owners, trace.owner_names, trace.n_slots, trace.alloc(1), trace.alloc(1)


@given(before=OPERATIONS, region=OPERATIONS)
def test_all_events_at_once_leave_the_trace_that_one_after_another_leaves(before: list[int], region: list[int]) -> None:
    (at_once, held), (one_by_one, _) = begun(before), begun(before)
    recording = recorded(region)
    for turn in range(3):
        alive = at_once.play(recording)
        assert alive == recording.onto(one_by_one)
        # What a region leaves, and what was there before, is freed as usual.
        for block in [*alive.values(), *held[turn : turn + 1]]:
            at_once.free(block)
            one_by_one.free(block)
    assert state(at_once) == state(one_by_one)
