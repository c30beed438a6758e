"""Recorded events are written at once as they would have been one by one."""

from hypothesis import given
from hypothesis import strategies as st

from acestep.units import KIB
from calibrate.probes.simulated.recorded_events import Event, RecordedEvents
from calibrate.probes.simulated.trace import Trace

CHOICES = st.lists(st.integers(0, 12), max_size=30)
"""Each number allocates, or frees one of what is alive if it is odd."""


def recorded(choices: list[int]) -> RecordedEvents:
    events: list[Event] = []
    alive: list[int] = []
    for position, choice in enumerate(choices):
        if choice % 2 and alive:
            events.append(Event(alive.pop(choice % len(alive)), -1, ""))
        else:
            alive.append(position)
            events.append(Event(position, choice * KIB, f"owner {choice % 3}"))
    return RecordedEvents(numbered(events))


def numbered(events: list[Event]) -> list[Event]:
    """Blocks by the position of their allocation among the events."""
    places = {event.block: place for place, event in enumerate(events) if event.n_bytes >= 0}
    return [event._replace(block=places[event.block]) for event in events]


def begun(choices: list[int]) -> Trace:
    """A trace with gaps among its slots."""
    trace = Trace()
    alive: list[int] = []
    for choice in choices:
        if choice % 2 and alive:
            trace.free(alive.pop(choice % len(alive)))
        else:
            alive.append(trace.alloc(choice, f"owner {choice % 4}"))
    return trace


def one_by_one(recording: RecordedEvents, trace: Trace) -> dict[int, int]:
    alive: dict[int, int] = {}
    for block, n_bytes, owner in recording:
        if n_bytes >= 0:
            alive[block] = trace.alloc(n_bytes, owner)
        else:
            trace.free(alive.pop(block))
    return alive


@given(before=CHOICES, choices=CHOICES, times=st.integers(1, 3), after=st.integers(0, 5))
def test_events_written_at_once_are_those_written_one_by_one(
    before: list[int], choices: list[int], times: int, after: int
) -> None:
    recording, at_once, singly = recorded(choices), begun(before), begun(before)
    for _ in range(times):
        assert recording.write(at_once) == one_by_one(recording, singly)
    for trace in (at_once, singly):
        for _ in range(after):
            trace.alloc(KIB)
    for part in ("sizes", "slots", "owners", "owner_names", "n_slots"):
        assert getattr(at_once, part) == getattr(singly, part)


@given(choices=CHOICES)
def test_what_stays_alive_can_be_freed_once(choices: list[int]) -> None:
    trace = Trace()
    for slot in recorded(choices).write(trace).values():
        trace.free(slot)
    assert trace.take_slots(trace.n_slots) == list(range(trace.n_slots))
