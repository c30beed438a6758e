"""What the guard says of segments is what the simulated allocator takes."""

from hypothesis import given
from hypothesis import strategies as st

from acestep.limits.workspace import SMALL_LIMIT, segment_bytes
from acestep.units import MIB
from calibrate.probes.simulated.allocator import CachingAllocator

large = st.integers(SMALL_LIMIT // 512 + 1, 64 * MIB // 512).map(lambda blocks: 512 * blocks)
"""Sizes as the allocator rounds them."""


@given(sizes=st.lists(large, max_size=20))
def test_tensors_take_the_segments_that_the_allocator_takes_for_them(sizes: list[int]) -> None:
    allocator = CachingAllocator()
    for size in sizes:
        allocator.malloc(size)
    assert segment_bytes(sizes) == allocator.reserved


@given(sizes=st.lists(large, max_size=9), small=st.lists(st.integers(0, SMALL_LIMIT), max_size=9))
def test_small_tensors_share_no_segment_with_large_ones(sizes: list[int], small: list[int]) -> None:
    assert segment_bytes([*small, *sizes]) == segment_bytes([*sizes, *small]) == segment_bytes(sizes)
