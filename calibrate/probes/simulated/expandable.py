"""PyTorch's allocator with `expandable_segments:True`: one segment of addresses for each pool, mapped piece by piece.

The rules are those of `c10/cuda/CUDACachingAllocator.cpp` (`try_allocate_expandable_block`, `map_block` and
`unmap_block`), for allocations on one stream. A cap means something else than with ordinary segments, in two ways. A
request that no free block holds is refused where the bytes of an ordinary segment for it would pass the cap, although a
free end of the segment may have part of them. And what is mapped then is rounded up to whole pieces, which may pass the
cap by less than one piece.
"""

from bisect import bisect_left, insort
from typing import Final

from acestep.limits.workspace import LARGE_SEGMENT, OWN_SEGMENT, SMALL_LIMIT, up_to_grain
from acestep.units import ceil_div
from calibrate.probes.simulated.allocator import (
    MIN_BLOCK,
    NO_CAP,
    SMALL_SEGMENT,
    AllocatorCounts,
)

ADDRESSES: Final = LARGE_SEGMENT << 24
"""The addresses of a segment: PyTorch reserves more than the card has, so that they never run out."""


class ExpandableBlock:
    """A stretch of a segment: in use, free, or without memory (not `mapped`)."""

    __slots__ = ("address", "live", "mapped", "next", "pool", "prev", "requested", "size")

    def __init__(self, pool: "_Pool", address: int, size: int, *, mapped: bool) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.mapped = mapped
        self.live = False
        self.requested = 0
        self.prev: ExpandableBlock | None = None
        self.next: ExpandableBlock | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Sorts free blocks: the smallest first, then by address."""
        return self.size, self.address

    @property
    def reach(self) -> int:
        """The size to which a free block can grow into addresses behind it that have no memory."""
        behind = self.next
        return self.size + (behind.size if behind is not None and not behind.mapped else 0)


class _Pool:
    """One segment of addresses, mapped in pieces of `piece` bytes."""

    def __init__(self, start: int, piece: int) -> None:
        self.piece = piece
        self.head = ExpandableBlock(self, start, ADDRESSES, mapped=False)
        self.free: list[tuple[tuple[int, int], ExpandableBlock]] = []

    def keep(self, block: ExpandableBlock) -> None:
        insort(self.free, (block.key, block), key=lambda entry: entry[0])

    def drop(self, block: ExpandableBlock) -> None:
        del self.free[bisect_left(self.free, block.key, key=lambda entry: entry[0])]

    def best_fit(self, size: int) -> ExpandableBlock | None:
        """The smallest free block that is large enough, where the end of the segment counts as all it can grow to."""
        at = bisect_left(self.free, size, key=lambda entry: entry[0][0])
        if at == len(self.free):
            return None
        while at + 1 < len(self.free) and self.free[at + 1][1].reach < self.free[at][1].reach:
            at += 1
        return self.free[at][1]

    def growing(self, size: int) -> ExpandableBlock:
        """The first addresses without memory that have room for `size`, together with a free block before them."""
        block: ExpandableBlock | None = self.head
        while block is not None:
            if not block.mapped:
                before = block.prev
                start = before if before is not None and before.mapped and not before.live else block
                if _room(start) >= size:
                    return start
            block = block.next
        raise AssertionError("the addresses of a segment have run out")


class ExpandableAllocator(AllocatorCounts):
    """As `CachingAllocator` counts, with expandable segments. All sizes in bytes."""

    def __init__(self, cap_bytes: int = NO_CAP) -> None:
        super().__init__(cap_bytes)
        self._small = _Pool(0, SMALL_SEGMENT)
        self._large = _Pool(ADDRESSES, LARGE_SEGMENT)

    def malloc(self, n_bytes: int) -> ExpandableBlock:
        """Return a block of at least `n_bytes`, which must be above 0.

        Raises `SimulatedOutOfMemoryError`; memory without a live block has then been returned, as on a card.
        """
        if n_bytes <= 0:
            raise ValueError(f"malloc() of {n_bytes} bytes: a size is above 0")
        size = ceil_div(n_bytes, MIN_BLOCK) * MIN_BLOCK
        pool = self._small if size <= SMALL_LIMIT else self._large
        block = pool.best_fit(size) or self._grown(pool, size, n_bytes)
        pool.drop(block)
        if block.size - size >= MIN_BLOCK:
            rest = _split(block, size)
            pool.keep(rest)
        block.live, block.requested = True, n_bytes
        self.requested += n_bytes
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: ExpandableBlock) -> None:
        """Take a block back and merge it with free neighbours. Raises `ValueError` for a block that is not live."""
        if not block.live:
            raise ValueError("free() of a block that is not live: it was freed before")
        self.allocated -= block.size
        self.requested -= block.requested
        block.live = False
        block.pool.keep(self._merged(block))

    def empty_cache(self) -> None:
        """Return the whole pieces of every free block to the driver; the rest of a piece stays."""
        for pool in (self._small, self._large):
            for _, block in tuple(pool.free):
                self._unmap(pool, block)

    def _grown(self, pool: _Pool, size: int, n_bytes: int) -> ExpandableBlock:
        """Return a free block of at least `size`, for which memory is mapped at the end of another or behind all."""
        wanted = SMALL_SEGMENT if pool is self._small else LARGE_SEGMENT if size < OWN_SEGMENT else up_to_grain(size)
        self._require_room(wanted, n_bytes)
        block = pool.growing(size)
        if not block.mapped:
            block = self._map(pool, block, size)
        while block.size < size:
            behind = block.next
            if behind is None:
                raise AssertionError("a growing block has addresses behind it")
            block = self._map(pool, behind, min(size - block.size, behind.size))
        return block

    def _map(self, pool: _Pool, block: ExpandableBlock, size: int) -> ExpandableBlock:
        """Give memory to the first `size` bytes of addresses, in whole pieces; return the free block around them."""
        mapped = min(ceil_div(size, pool.piece) * pool.piece, block.size)
        if mapped < block.size:
            _split(block, mapped)
        block.mapped = True
        self.reserved += mapped
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        block = self._merged(block)
        pool.keep(block)
        return block

    def _unmap(self, pool: _Pool, block: ExpandableBlock) -> None:
        begin = ceil_div(block.address, pool.piece) * pool.piece
        end = (block.address + block.size) // pool.piece * pool.piece
        if end <= begin:
            return
        pool.drop(block)
        if begin > block.address:
            rest = _split(block, begin - block.address)
            pool.keep(block)
            block = rest
        if end < block.address + block.size:
            pool.keep(_split(block, end - block.address))
        block.mapped = False
        self.reserved -= block.size
        self._merged(block)

    def _merged(self, block: ExpandableBlock) -> ExpandableBlock:
        """Join a free block with neighbours that are free, or have no memory, as it is; they leave the free list."""
        for first, second in ((block, block.next), (block.prev, block)):
            if first is None or second is None or first.live or second.live or first.mapped != second.mapped:
                continue
            other = second if first is block else first
            if other.mapped:
                other.pool.drop(other)
            first.size += second.size
            first.next = second.next
            if second.next is not None:
                second.next.prev = first
            block = first
        return block


def _split(block: ExpandableBlock, size: int) -> ExpandableBlock:
    """Cut a block after `size` bytes; return the rest, which is as much mapped as the block."""
    rest = ExpandableBlock(block.pool, block.address + size, block.size - size, mapped=block.mapped)
    rest.prev, rest.next = block, block.next
    if block.next is not None:
        block.next.prev = rest
    block.next, block.size = rest, size
    return rest


def _room(block: ExpandableBlock | None) -> int:
    """The bytes from a block on until one is in use."""
    size = 0
    while block is not None and not block.live:
        size += block.size
        block = block.next
    return size
