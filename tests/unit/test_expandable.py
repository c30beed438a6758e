"""Expandable segments: traces computed by hand from PyTorch's rules, and what must hold after any requests."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.units import KIB, MIB
from calibrate.probes.simulated.allocator import CachingAllocator, SimulatedOutOfMemoryError
from calibrate.probes.simulated.expandable import ExpandableAllocator, ExpandableBlock

PIECE = 20 * MIB


def large(allocator: ExpandableAllocator, *sizes: int) -> list[ExpandableBlock]:
    return [allocator.malloc(size) for size in sizes]


def places(blocks: list[ExpandableBlock]) -> list[int]:
    return [block.address - blocks[0].address for block in blocks]


def test_a_segment_grows_where_ordinary_ones_begin_anew() -> None:
    expandable, ordinary = ExpandableAllocator(), CachingAllocator()
    blocks = large(expandable, 3 * MIB, 25 * MIB)
    for size in (3 * MIB, 25 * MIB):
        ordinary.malloc(size)
    # 20 MiB are mapped for the first; 17 of them and 20 more hold the second. Otherwise it has 26 MiB of its own.
    assert places(blocks) == [0, 3 * MIB]
    assert (expandable.reserved, ordinary.reserved) == (40 * MIB, 46 * MIB)


def test_small_requests_have_a_segment_of_their_own_in_pieces_of_two() -> None:
    allocator = ExpandableAllocator()
    for _ in range(3):
        allocator.malloc(1 * MIB)
    assert allocator.reserved == 4 * MIB
    allocator.malloc(1 * MIB + 1)
    assert allocator.reserved == 4 * MIB + PIECE


def test_what_is_left_of_a_block_is_used_down_to_the_smallest_block() -> None:
    expandable, ordinary = ExpandableAllocator(), CachingAllocator()
    size = PIECE - 512 * KIB
    assert expandable.malloc(size).size == size
    assert ordinary.malloc(size).size == 20 * MIB, "up to 1 MiB stays unsplit in an ordinary segment"


def test_a_free_block_inside_is_taken_before_the_end_that_can_grow() -> None:
    allocator = ExpandableAllocator()
    first, inner, _ = large(allocator, 2 * MIB, 8 * MIB, 4 * MIB)
    allocator.free(inner)
    # Behind the last block 6 MiB are free, the better fit for 5; they can grow, so the inner 8 MiB count as smaller.
    assert allocator.malloc(5 * MIB).address - first.address == 2 * MIB


def test_whole_pieces_are_returned_from_the_middle_and_mapped_again() -> None:
    allocator = ExpandableAllocator()
    first, middle, _ = large(allocator, 10 * MIB, 40 * MIB, 10 * MIB)
    assert allocator.reserved == 60 * MIB
    allocator.free(middle)
    allocator.empty_cache()
    assert allocator.reserved == 40 * MIB, "of the bytes from 10 to 50 MiB only those from 20 to 40 are a whole piece"
    again = allocator.malloc(12 * MIB)
    assert (again.address - first.address, allocator.reserved) == (10 * MIB, 60 * MIB)


def test_a_cap_refuses_what_a_free_end_would_have_had_room_for() -> None:
    allocator = ExpandableAllocator(40 * MIB)
    allocator.malloc(3 * MIB)
    # 17 MiB are free and 20 more would fit the cap. Yet 22 MiB, which an ordinary segment takes for it, would not.
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(21 * MIB)
    assert (allocator.num_retries, allocator.num_oom, allocator.reserved) == (1, 1, 20 * MIB)


def test_whole_pieces_may_pass_a_cap() -> None:
    allocator = ExpandableAllocator(22 * MIB)
    allocator.malloc(21 * MIB)
    assert allocator.reserved == 40 * MIB


def test_before_a_refusal_free_pieces_are_returned() -> None:
    allocator = ExpandableAllocator(60 * MIB)
    blocks = large(allocator, 20 * MIB, 20 * MIB, 20 * MIB)
    for block in (blocks[0], blocks[2]):
        allocator.free(block)
    # Neither free piece holds 40 MiB. Both are returned, and the last addresses are mapped again.
    found = allocator.malloc(40 * MIB)
    assert found.address - blocks[0].address == 40 * MIB
    assert (allocator.num_retries, allocator.num_oom, allocator.reserved) == (1, 0, 60 * MIB)


def test_a_block_is_freed_once_and_a_size_is_above_zero() -> None:
    allocator = ExpandableAllocator()
    block = allocator.malloc(MIB)
    allocator.free(block)
    with pytest.raises(ValueError, match="not live"):
        allocator.free(block)
    with pytest.raises(ValueError, match="above 0"):
        allocator.malloc(0)
    with pytest.raises(ValueError, match="negative"):
        ExpandableAllocator(-1)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60 * MIB)), max_size=40), st.integers(0, 400 * MIB))
def test_no_two_live_blocks_share_a_byte_and_everything_is_returned_at_last(
    steps: list[tuple[bool, int]], cap: int
) -> None:
    allocator = ExpandableAllocator(cap)
    live: list[ExpandableBlock] = []
    for asks, size in steps:
        if asks or not live:
            try:
                live.append(allocator.malloc(size))
            except SimulatedOutOfMemoryError:
                continue
        else:
            allocator.free(live.pop(size % len(live)))
        spans = sorted((block.address, block.address + block.size) for block in live)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
        assert allocator.allocated == sum(block.size for block in live) <= allocator.reserved
        assert allocator.reserved < cap + PIECE
    for block in live:
        allocator.free(block)
    allocator.empty_cache()
    assert (allocator.reserved, allocator.allocated, allocator.requested) == (0, 0, 0)
