"""What PyTorch's CUDA allocator takes from a card for tensors that are allocated one after another. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

from acestep.units import MIB

SMALL_LIMIT: Final = 1 * MIB
"""`kSmallSize`: up to here a tensor comes from small segments; also what a larger block keeps rather than split off."""

LARGE_SEGMENT: Final = 20 * MIB
"""`kLargeBuffer`: what is taken for a tensor below `OWN_SEGMENT`."""

OWN_SEGMENT: Final = 10 * MIB
"""`kMinLargeAlloc`: from here on a tensor gets a segment of its own size, rounded up to `SEGMENT_GRAIN`."""

SEGMENT_GRAIN: Final = 2 * MIB
"""`kRoundLarge`: every segment is a multiple of it (`c10/cuda/CUDACachingAllocator.cpp`, its default settings)."""


def up_to_grain(n_bytes: int) -> int:
    """The multiple of `SEGMENT_GRAIN` that holds `n_bytes`."""
    return -(-n_bytes // SEGMENT_GRAIN) * SEGMENT_GRAIN


def segment_bytes(sizes: Iterable[int]) -> int:
    """Bytes of segments for tensors of `sizes` bytes, none of them freed; those of small segments are left out."""
    taken, gaps = 0, list[int]()
    for size in sizes:
        if size <= SMALL_LIMIT:
            continue
        fitting = bisect_left(gaps, size)
        if fitting < len(gaps):
            block = gaps.pop(fitting)
        else:
            block = LARGE_SEGMENT if size < OWN_SEGMENT else up_to_grain(size)
            taken += block
        if block - size > SMALL_LIMIT:
            insort(gaps, block - size)
    return taken
