"""A probe never holds more than its cap, and all memory outside the allocator is charged."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from acestep.errors import NotMeasuredError
from acestep.units import GIB, MIB
from calibrate.probes.ballast import GRAIN_BYTES, PIECE_BYTES, SMALLEST_BYTES, Ballast, ballast_sizes
from calibrate.probes.caps import Cap, require_cap_room
from calibrate.probes.nvml import Usage
from tests.faulty_worker import Shelf

sizes = st.integers(0, 30 * GIB)
caps = st.builds(
    Cap, cap_bytes=st.integers(1, 30 * GIB), assumed_bytes=st.integers(0, GIB), context_bytes=st.integers(0, 8 * GIB)
)


@given(caps)
def test_the_allocator_never_gets_more_than_the_cap(cap: Cap) -> None:
    assert 0 <= cap.allocator_bytes <= cap.cap_bytes


@given(caps)
def test_a_context_within_its_share_costs_nothing(cap: Cap) -> None:
    assume(cap.context_bytes <= cap.assumed_bytes)
    assert cap.allocator_bytes == cap.cap_bytes
    assert cap.free_bytes + cap.context_bytes == cap.cap_bytes + cap.assumed_bytes


@given(caps)
def test_allocator_and_context_fill_the_budget_together_at_most(cap: Cap) -> None:
    assume(cap.allocator_bytes > 0)
    assert cap.allocator_bytes + cap.context_bytes <= cap.cap_bytes + max(cap.assumed_bytes, cap.context_bytes)
    assert cap.allocator_bytes <= cap.free_bytes


@given(caps, sizes)
def test_what_was_held_within_the_cap_is_no_overrun_unless_the_context_grew(cap: Cap, share: int) -> None:
    assume(cap.allocator_bytes > 0)
    reserved = share % (cap.allocator_bytes + 1)
    assert cap.overrun_bytes(reserved, 0) == 0


@given(caps, sizes, st.lists(sizes, min_size=2, max_size=5))
def test_an_overrun_grows_with_what_is_taken_outside(cap: Cap, reserved: int, grown: list[int]) -> None:
    overruns = [cap.overrun_bytes(reserved, bytes_) for bytes_ in sorted(grown)]
    assert all(one <= other for one, other in pairwise(overruns))
    assert overruns[-1] <= reserved + cap.context_bytes + max(grown)


@given(caps, st.integers(1, 30 * GIB), sizes)
def test_an_overrun_is_told_of_an_allocator_that_has_less_than_was_held(cap: Cap, reserved: int, grown: int) -> None:
    assume(cap.overrun_bytes(reserved, grown))
    assert cap.withheld_bytes() <= cap.withheld_bytes(grown) <= cap.cap_bytes
    assert cap.cap_bytes - cap.withheld_bytes(grown) < reserved


@given(sizes, sizes, sizes)
def test_a_card_is_asked_only_for_what_it_has_free(cap_bytes: int, context: int, free: int) -> None:
    before = Usage(total_bytes=30 * GIB, used_bytes=(30 * GIB - free) // 2, free_bytes=free, processes={})
    if cap_bytes + context <= free:
        require_cap_room(cap_bytes, context, before)
    else:
        with pytest.raises(NotMeasuredError, match=r"free, and a probe .* close other programs"):
            require_cap_room(cap_bytes, context, before)


@given(sizes)
def test_pieces_add_up_to_within_a_grain_and_each_is_a_segment_of_its_own(n_bytes: int) -> None:
    parts = ballast_sizes(n_bytes)
    if n_bytes >= SMALLEST_BYTES:
        assert 0 <= sum(parts) - n_bytes < GRAIN_BYTES
    assert all(part >= SMALLEST_BYTES and part % GRAIN_BYTES == 0 for part in parts)
    assert all(part < 2 * PIECE_BYTES for part in parts)


def test_less_than_nothing_takes_no_piece() -> None:
    assert ballast_sizes(-GIB) == []


@given(st.lists(st.integers(0, 24 * GIB - SMALLEST_BYTES), min_size=1, max_size=6))
def test_free_memory_reads_as_on_the_small_card_whatever_was_left_free_before(wanted: list[int]) -> None:
    shelf = Shelf(24 * GIB)
    ballast = Ballast(shelf)
    for free in wanted:
        filled = ballast.leave_free(free)
        assert free - GRAIN_BYTES < filled.free_bytes <= free
        assert filled.free_bytes == shelf.free_bytes()
        assert filled.held_bytes == shelf.taken_bytes


def test_a_ballast_told_to_leave_everything_holds_nothing() -> None:
    shelf = Shelf(GIB)
    ballast = Ballast(shelf)
    ballast.leave_free(100 * MIB)
    filled = ballast.leave_free(GIB)
    assert (filled.held_bytes, filled.free_bytes) == (0, GIB)


def test_a_card_that_is_fuller_than_asked_is_left_as_it_is() -> None:
    shelf = Shelf(GIB)
    others = shelf.take(GIB // 2)
    filled = Ballast(shelf).leave_free(GIB - 1)
    assert (filled.held_bytes, filled.free_bytes) == (0, GIB // 2)
    del others
