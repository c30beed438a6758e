"""Every rule of the allocator on traces small enough to follow by hand."""

from itertools import permutations

import pytest

from acestep.units import KIB, MIB
from calibrate.probes.simulated.allocator import CachingAllocator, SegmentView, SimulatedOutOfMemoryError


def shape(segment: SegmentView) -> list[tuple[int, bool]]:
    """Sizes of a segment's blocks in order, and whether each is live."""
    return [(block.size, block.live) for block in segment.blocks]


@pytest.mark.parametrize(("asked", "got"), [(1, 512), (512, 512), (513, 1024), (MIB - 1, MIB), (MIB, MIB)])
def test_a_request_is_rounded_up_to_512_bytes(asked: int, got: int) -> None:
    allocator = CachingAllocator()
    assert allocator.malloc(asked).size == got
    assert (allocator.allocated, allocator.requested) == (got, asked)


def test_zero_bytes_cost_nothing_and_can_be_freed() -> None:
    allocator = CachingAllocator(cap_bytes=0)
    allocator.free(allocator.malloc(0))
    assert (allocator.allocated, allocator.reserved, allocator.snapshot()) == (0, 0, ())


@pytest.mark.parametrize(
    ("asked", "segment"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (12 * MIB, 12 * MIB),
        (201 * MIB, 202 * MIB),
    ],
)
def test_the_rounded_request_decides_the_size_of_a_new_segment(asked: int, segment: int) -> None:
    allocator = CachingAllocator()
    allocator.malloc(asked)
    assert allocator.reserved == segment


def test_the_small_pool_splits_off_every_remainder() -> None:
    allocator = CachingAllocator()
    allocator.malloc(MIB)
    allocator.malloc(MIB - 512)
    [segment] = allocator.snapshot()
    assert segment.small
    assert shape(segment) == [(MIB, True), (MIB - 512, True), (512, False)]
    allocator.malloc(1)
    assert allocator.reserved == allocator.allocated == 2 * MIB


def test_the_large_pool_keeps_a_remainder_of_one_mib_in_the_block() -> None:
    allocator = CachingAllocator()
    assert allocator.malloc(19 * MIB).size == 20 * MIB
    assert (allocator.allocated, allocator.requested) == (20 * MIB, 19 * MIB)


def test_the_large_pool_splits_off_a_remainder_above_one_mib() -> None:
    allocator = CachingAllocator()
    assert allocator.malloc(19 * MIB - 512).size == 19 * MIB - 512
    [segment] = allocator.snapshot()
    assert shape(segment) == [(19 * MIB - 512, True), (MIB + 512, False)]


def test_the_smallest_block_that_is_large_enough_is_taken() -> None:
    allocator = CachingAllocator()
    cached = [allocator.malloc(n * MIB) for n in (30, 14, 12, 22)]
    addresses = [block.address for block in cached]
    for block in cached:
        allocator.free(block)
    assert allocator.malloc(13 * MIB).address == addresses[1]
    assert allocator.malloc(13 * MIB).address == addresses[3]
    assert allocator.reserved == 78 * MIB


def test_of_blocks_of_one_size_the_lowest_address_is_taken() -> None:
    allocator = CachingAllocator()
    cached = [allocator.malloc(12 * MIB) for _ in range(3)]
    for at in (1, 2, 0):
        allocator.free(cached[at])
    assert [allocator.malloc(12 * MIB).address for _ in range(3)] == sorted(block.address for block in cached)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_freed_block_merges_with_the_free_blocks_before_and_behind_it(order: tuple[int, ...]) -> None:
    allocator = CachingAllocator()
    blocks = [allocator.malloc(n * MIB) for n in (5, 6, 9)]
    assert allocator.reserved == 20 * MIB
    for at in order:
        allocator.free(blocks[at])
    [segment] = allocator.snapshot()
    assert shape(segment) == [(20 * MIB, False)]
    assert allocator.malloc(20 * MIB).address == segment.address


def test_a_freed_block_does_not_merge_over_a_live_one() -> None:
    allocator = CachingAllocator()
    first, _, last = (allocator.malloc(n * MIB) for n in (5, 6, 9))
    allocator.free(first)
    allocator.free(last)
    [segment] = allocator.snapshot()
    assert shape(segment) == [(5 * MIB, False), (6 * MIB, True), (9 * MIB, False)]


def test_a_remainder_merges_with_the_free_block_after_it() -> None:
    allocator = CachingAllocator()
    first, middle, last, _ = (allocator.malloc(n * MIB) for n in (3, 9, 4, 4))
    allocator.free(middle)
    assert allocator.malloc(5 * MIB).address == middle.address
    allocator.free(last)
    [segment] = allocator.snapshot()
    assert shape(segment) == [(3 * MIB, True), (5 * MIB, True), (8 * MIB, False), (4 * MIB, True)]
    assert first.live


def test_neighbouring_segments_never_merge() -> None:
    allocator = CachingAllocator()
    for block in [allocator.malloc(12 * MIB), allocator.malloc(12 * MIB)]:
        allocator.free(block)
    allocator.malloc(24 * MIB)
    assert allocator.reserved == 48 * MIB


def test_the_pools_never_serve_each_other() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(12 * MIB))
    allocator.free(allocator.malloc(512))
    allocator.malloc(MIB)
    assert allocator.reserved == 14 * MIB
    allocator.malloc(MIB + 1)
    assert allocator.reserved == 14 * MIB
    assert [segment.small for segment in allocator.snapshot()] == [False, True]


def test_a_refused_segment_is_tried_again_after_both_pools_gave_back_what_is_wholly_free() -> None:
    allocator = CachingAllocator(cap_bytes=34 * MIB)
    allocator.free(allocator.malloc(12 * MIB))
    allocator.free(allocator.malloc(512))
    kept = allocator.malloc(20 * MIB)
    assert (allocator.reserved, allocator.num_retries) == (34 * MIB, 0)
    allocator.malloc(14 * MIB)
    assert (allocator.reserved, allocator.num_retries, allocator.num_oom) == (34 * MIB, 1, 0)
    assert [segment.size for segment in allocator.snapshot()] == [20 * MIB, 14 * MIB]
    assert kept.live


def test_the_cap_is_never_exceeded_and_can_be_reached_exactly() -> None:
    allocator = CachingAllocator(cap_bytes=24 * MIB)
    allocator.malloc(20 * MIB)
    allocator.malloc(512)
    allocator.malloc(MIB)
    with pytest.raises(SimulatedOutOfMemoryError) as caught:
        allocator.malloc(3 * MIB)
    error = caught.value
    assert (error.requested, error.reserved, error.allocated) == (3 * MIB, 22 * MIB, 21 * MIB + 512)
    assert error.cap == 24 * MIB
    allocator.malloc(MIB)
    assert allocator.reserved == 24 * MIB
    assert allocator.num_oom == 1


def test_after_out_of_memory_the_cache_is_empty_and_the_allocator_still_works() -> None:
    allocator = CachingAllocator(cap_bytes=40 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(41 * MIB)
    assert allocator.reserved == 0
    assert allocator.malloc(40 * MIB).size == 40 * MIB


def test_empty_cache_keeps_a_segment_with_a_live_block_whole() -> None:
    allocator = CachingAllocator()
    kept = allocator.malloc(5 * MIB)
    gone = allocator.malloc(12 * MIB)
    allocator.free(allocator.malloc(6 * MIB))
    allocator.free(gone)
    allocator.empty_cache()
    [segment] = allocator.snapshot()
    assert shape(segment) == [(kept.size, True), (15 * MIB, False)]
    assert allocator.reserved == 20 * MIB


def test_peaks_start_again_from_what_is_held() -> None:
    allocator = CachingAllocator()
    kept = allocator.malloc(12 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    assert (allocator.peak_allocated, allocator.peak_reserved) == (42 * MIB, 42 * MIB)
    allocator.reset_peaks()
    assert (allocator.peak_allocated, allocator.peak_reserved) == (12 * MIB, 42 * MIB)
    allocator.free(kept)
    allocator.empty_cache()
    allocator.reset_peaks()
    assert (allocator.peak_allocated, allocator.peak_reserved) == (0, 0)


def test_a_block_is_freed_once() -> None:
    allocator = CachingAllocator()
    block = allocator.malloc(KIB)
    allocator.free(block)
    with pytest.raises(ValueError, match="freed before"):
        allocator.free(block)


def test_negative_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        CachingAllocator(cap_bytes=-1)
    with pytest.raises(ValueError, match="negative"):
        CachingAllocator().malloc(-1)


def layout(*steps: int, swapped: bool = False) -> tuple[int, ...]:
    """The state after allocating MiB (positive) or freeing the block numbered -step - 1; owners in order, or not."""
    allocator = CachingAllocator()
    blocks = {}
    for at, step in enumerate(steps):
        if step > 0:
            blocks[at] = allocator.malloc(step * MIB)
        else:
            allocator.free(blocks.pop(-step - 1))
    live = list(blocks.values())
    return allocator.layout({block: at for at, block in enumerate(reversed(live) if swapped else live)})


def test_layouts_differ_whenever_later_behaviour_could() -> None:
    states = [
        layout(5, 5),
        layout(5, 5, swapped=True),
        layout(5, 5, -1),
        layout(5, 5, -2),
        layout(10, 10),
        layout(20, -1, 10, 10),
        layout(20),
        layout(20, -1),
        layout(1, 1),
        layout(5, 1),
        layout(1, 5),
    ]
    assert len(set(states)) == len(states)


def test_layouts_do_not_depend_on_segment_addresses() -> None:
    layouts, addresses = [], []
    for earlier in (0, 100 * MIB):
        allocator = CachingAllocator()
        allocator.free(allocator.malloc(earlier))
        allocator.empty_cache()
        blocks = [allocator.malloc(n_bytes) for n_bytes in (12 * MIB, 512, 5 * MIB)]
        layouts.append(allocator.layout({block: at for at, block in enumerate(blocks)}))
        addresses.append([block.address for block in blocks])
    assert layouts[0] == layouts[1]
    assert addresses[0] != addresses[1]


def test_a_block_that_a_stream_still_uses_is_not_allocated_and_not_free() -> None:
    allocator = CachingAllocator()
    block = allocator.malloc(4 * MIB)
    allocator.free_later(block)
    assert (allocator.allocated, allocator.requested, allocator.reserved) == (0, 4 * MIB, 20 * MIB)
    assert allocator.malloc(4 * MIB).address == block.address + 4 * MIB
    allocator.complete(block)
    assert allocator.malloc(4 * MIB).address == block.address
    assert allocator.allocated == 8 * MIB


def test_a_request_that_does_not_fit_waits_for_the_streams() -> None:
    allocator = CachingAllocator(20 * MIB)
    allocator.free_later(allocator.malloc(20 * MIB))
    assert allocator.malloc(18 * MIB).size == 18 * MIB
    assert (allocator.num_retries, allocator.reserved) == (1, 18 * MIB)


def test_a_wait_ends_once_and_for_a_block_that_waits() -> None:
    allocator = CachingAllocator()
    block = allocator.malloc(MIB)
    with pytest.raises(ValueError, match="does not wait"):
        allocator.complete(block)
    allocator.free_later(block)
    with pytest.raises(ValueError, match="freed before"):
        allocator.free_later(block)
    allocator.complete(block)
    with pytest.raises(ValueError, match="not live"):
        allocator.free(block)
