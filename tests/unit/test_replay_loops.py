"""Skipping the turns of a loop changes nothing but the time a replay takes."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.units import KIB, MIB, ceil_div
from calibrate.probes.simulated.loops import MIN_CLOSED_TURNS, MIN_PERIOD, MIN_TURNS, Loop, find_loops
from calibrate.probes.simulated.replay import Player, ReplayResult, replay, smallest_cap
from calibrate.probes.simulated.trace import FREE, Trace

SIZES = (700, MIB // 2, MIB, MIB + 1, 2 * MIB, 3 * MIB, 9 * MIB, 12 * MIB, 13 * MIB, 21 * MIB, 33 * MIB)
EMPTY_CACHE = -30
BODIES = st.lists(st.one_of(st.sampled_from(SIZES), st.integers(EMPTY_CACHE, -1)), min_size=2, max_size=30)

TURNS = st.builds(lambda first, rest: [first, *rest], st.sampled_from(SIZES), BODIES)
"""Operations of which at least one makes a block, so that a turn has events."""


def play_into(trace: Trace, operations: list[int], live: list[int]) -> None:
    """Allocates sizes; a negative number frees one of `live`, or empties the cache where it is `EMPTY_CACHE`."""
    for operation in operations:
        if operation >= 0:
            live.append(trace.alloc(operation))
        elif operation == EMPTY_CACHE:
            trace.empty_cache()
        elif live:
            trace.free(live.pop(operation % len(live)))


def looped(before: list[int], body: list[int], turns: int) -> Trace:
    """`before`, then `turns` repetitions of `body`, each of which frees what it made, then one more block."""
    trace = Trace()
    play_into(trace, before, [])
    trace.begin_stage("loop")
    for _ in range(turns):
        live: list[int] = []
        play_into(trace, body, live)
        for block in live:
            trace.free(block)
    trace.end_stage()
    trace.alloc(3 * MIB)
    return trace


def turns_of_loops(body: list[int], more: int) -> int:
    """How many turns of a body certainly hold loops, twice over: one event may spoil the half that it is in."""
    events = len(looped([], body, 2)) - len(looped([], body, 1))
    return ceil_div(2 * (MIN_TURNS + 1) * MIN_PERIOD, events) + more


def leaves_nothing(trace: Trace, loop: Loop) -> bool:
    """Whether a turn frees what it allocates, and nothing older."""
    turn = slice(loop.start, loop.start + loop.period)
    alive: set[int] = set()
    for size, slot in zip(trace.sizes[turn], trace.slots[turn], strict=True):
        if size == FREE and slot not in alive:
            return False
        alive ^= {slot}
    return not alive


def interesting_caps(trace: Trace) -> list[int]:
    """Every cap of the grid around the one where the trace begins to fit, and one that is far too small."""
    edge = smallest_cap(trace)
    return [edge // 2, *range(max(0, edge - 4 * SEGMENT_GRAIN), edge + 3 * SEGMENT_GRAIN, SEGMENT_GRAIN), 2 * edge]


def outcome(trace: Trace, cap: int, loops: Sequence[Loop]) -> tuple[ReplayResult, tuple[int, ...]]:
    """What a replay reports, and the state of the allocator it leaves."""
    player = Player(trace, cap)
    return player.play(loops), player._layout()


@settings(max_examples=40)
@given(before=BODIES, body=TURNS, more=st.integers(0, 200))
def test_a_replay_that_skips_turns_finds_what_playing_them_all_finds(
    before: list[int], body: list[int], more: int
) -> None:
    trace = looped(before, body, turns_of_loops(body, more))
    loops = find_loops(trace)
    assert loops
    for cap in interesting_caps(trace):
        assert outcome(trace, cap, loops) == outcome(trace, cap, [])


def test_what_a_loop_leaves_behind_in_the_cache_is_what_it_would_have_left() -> None:
    trace = looped([13 * MIB], [12 * MIB, 2 * MIB, -2, 9 * MIB, 700, -1], 2000)
    loops = find_loops(trace)
    assert loops
    for cap in interesting_caps(trace):
        assert outcome(trace, cap, loops) == outcome(trace, cap, [])


@pytest.mark.parametrize("turns", [20, 21, 22, 23])
def test_a_loop_that_swings_between_two_states_is_left_in_the_right_one(turns: int) -> None:
    """Under a cap of 62 MiB each turn of these four moves finds the cache as the last but one did."""
    trace = Trace()
    trace.alloc(11 * MIB)
    moved = trace.alloc(12 * MIB)
    for _ in range(turns):
        for n_bytes in (3 * MIB, 20 * MIB, 20 * MIB, 12 * MIB):
            fresh = trace.alloc(n_bytes)
            trace.free(moved)
            moved = fresh
        # All of other sizes, so that there is no loop among them.
        for at in range(MIN_PERIOD // 2 - 4):
            trace.free(trace.alloc(KIB * (1 + at)))
    [loop] = find_loops(trace)
    assert loop.period == MIN_PERIOD
    assert outcome(trace, 62 * MIB, [loop]) == outcome(trace, 62 * MIB, [])


@pytest.mark.parametrize("turn_events", [4, 750, 3000])
def test_a_long_loop_is_found_and_covers_nearly_all_of_its_events(turn_events: int) -> None:
    body = [KIB * (1 + at % 97) for at in range(turn_events // 2)]
    trace = looped([MIB], body, max(2 * MIN_TURNS, 40 * MIN_PERIOD // turn_events))
    covered = sum(loop.stop - loop.start for loop in find_loops(trace))
    assert covered >= 0.9 * len(trace)


@settings(max_examples=30)
@given(body=TURNS, other=BODIES, more=st.integers(0, 200), fault=st.integers(0, 20_000))
def test_loops_repeat_their_events_exactly_and_never_overlap(
    body: list[int], other: list[int], more: int, fault: int
) -> None:
    trace = looped(other, body, turns_of_loops(body, more))
    for _ in range(turns_of_loops([KIB], more)):
        play_into(trace, [KIB, -1], [])
    trace.sizes[fault % len(trace)] += 1
    end = 0
    loops = find_loops(trace)
    assert len(loops) > 1
    for loop in loops:
        assert end <= loop.start
        assert loop.stop <= len(trace)
        assert loop.turns >= (MIN_CLOSED_TURNS if loop.closed else MIN_TURNS)
        assert not loop.closed or leaves_nothing(trace, loop)
        for events in (trace.sizes, trace.slots):
            first = events[loop.start : loop.start + loop.period]
            assert events[loop.start : loop.stop] == first * loop.turns
        end = loop.stop


def test_of_loops_inside_a_loop_those_that_save_most_are_chosen() -> None:
    """Eight songs of many tiles: the tiles of each song make a loop, and so do the songs."""
    trace = Trace()
    for _ in range(8):
        for n_bytes in range(KIB, 700 * KIB, KIB):
            trace.free(trace.alloc(n_bytes))
        for _ in range(4000):
            play_into(trace, [MIB, 9 * MIB, -1, -1], [])
    loops = find_loops(trace)
    assert len(loops) == 8
    assert all(a.stop <= b.start for a, b in pairwise(loops))
    assert replay(trace, loops=loops) == replay(trace, loops=())


def test_a_short_trace_has_no_loops() -> None:
    assert find_loops(Trace()) == ()
    assert find_loops(looped([MIB], [MIB], 3)) == ()
    assert Loop(start=3, period=10, turns=4).stop == 43


def test_short_turns_that_leave_nothing_are_found_and_played_once() -> None:
    """The layers of a language model: few events each, and too few of them for comparing states."""
    layer = [MIB, 9 * MIB, 2 * MIB, 700, -1, -2, 3 * MIB, 13 * MIB, -1, 700, 2 * MIB, -3] * 2
    trace = looped([13 * MIB, 20 * MIB], layer, 28)
    loops = find_loops(trace)
    assert any(loop.closed for loop in loops)
    assert sum(loop.stop - loop.start for loop in loops) >= 0.8 * len(trace)
    for cap in interesting_caps(trace):
        assert outcome(trace, cap, loops) == outcome(trace, cap, [])
