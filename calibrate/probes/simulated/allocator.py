"""A model of PyTorch's CUDA caching allocator: which blocks it gives, and when a hard cap makes it refuse.

The rules are those of `c10/cuda/CUDACachingAllocator.cpp` with its default settings (no expandable segments, no
`max_split_size`, no rounding to powers of two), for allocations on one stream. Addresses of new segments only ever grow
here; CUDA chooses its own, which can decide between two free blocks of equal size and nothing else.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from acestep.limits.workspace import LARGE_SEGMENT, OWN_SEGMENT, SEGMENT_GRAIN, SMALL_LIMIT, up_to_grain
from acestep.units import KIB, MIB, mib

MIN_BLOCK: Final = 512
"""`kMinBlockSize`: every request is rounded up to a multiple of this."""

SMALL_SEGMENT: Final = 2 * MIB
"""`kSmallBuffer`: the size of the small pool's segments."""

NO_CAP: Final = 1 << 62


class SimulatedOutOfMemoryError(Exception):
    """A request that did not fit under the cap even after every cached segment was freed. All sizes in bytes."""

    def __init__(self, requested: int, reserved: int, allocated: int, cap: int) -> None:
        super().__init__(
            f"simulated card out of memory: {requested / KIB:.1f} KiB asked for with {mib(allocated)} in use and "
            f"{mib(reserved)} held of a cap of {mib(cap)}"
        )
        self.requested = requested
        self.reserved = reserved
        self.allocated = allocated
        self.cap = cap


class BlockView(msgspec.Struct, frozen=True, kw_only=True):
    """One block as a snapshot shows it; `requested` is 0 where `live` is not set."""

    address: int
    size: int
    requested: int
    live: bool


class SegmentView(msgspec.Struct, frozen=True, kw_only=True):
    """One segment as a snapshot shows it, its blocks in order of address."""

    address: int
    size: int
    small: bool
    blocks: tuple[BlockView, ...]


class Block:
    """A block of memory that `malloc` returns and `free` takes. Its `size` and `address` are read-only."""

    __slots__ = ("address", "live", "next", "pool", "prev", "requested", "size")

    def __init__(self, pool: "FreeList", address: int, size: int) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.requested = 0
        self.live = False
        self.prev: Block | None = None
        self.next: Block | None = None


FreeList: TypeAlias = list[tuple[int, int, Block]]
"""The free blocks of one pool, sorted by size and then address: the first that is large enough is the best fit."""


class AllocatorCounts:
    """What an allocator under a hard cap counts, in bytes: of live blocks, of the sizes asked for, and of segments.

    `denied` is the smallest amount of segments that was above the cap. Under every other cap below it, and not below
    the largest amount that was held, the allocator does the same for the same requests.
    """

    __slots__ = (
        "allocated",
        "cap",
        "denied",
        "num_oom",
        "num_retries",
        "peak_allocated",
        "peak_reserved",
        "requested",
        "reserved",
    )

    def __init__(self, cap_bytes: int) -> None:
        if cap_bytes < 0:
            raise ValueError(f"cap_bytes must not be negative, got {cap_bytes}")
        self.cap = cap_bytes
        self.allocated = self.requested = self.reserved = 0
        self.peak_allocated = self.peak_reserved = 0
        self.num_oom = self.num_retries = 0
        self.denied = NO_CAP + 1

    def empty_cache(self) -> None:
        """Return memory without a live block to the driver."""
        raise NotImplementedError

    def _require_room(self, more: int, n_bytes: int) -> None:
        """Raise `SimulatedOutOfMemoryError` if `more` bytes pass the cap, also with an empty cache."""
        if self.reserved + more > self.cap:
            self.num_retries += 1
            self.denied = min(self.denied, self.reserved + more)
            self.empty_cache()
            if self.reserved + more > self.cap:
                self.num_oom += 1
                self.denied = min(self.denied, self.reserved + more)
                raise SimulatedOutOfMemoryError(n_bytes, self.reserved, self.allocated, self.cap)


class CachingAllocator(AllocatorCounts):
    """Allocates blocks under a hard cap on reserved bytes.

    `allocated` counts whole blocks, as torch's `allocated_bytes` does; `requested` the bytes asked for. `pending`
    are the blocks whose free waits for another stream, in the order of the calls.
    """

    __slots__ = (
        "_heads",
        "_large",
        "_next_address",
        "_small",
        "pending",
    )

    def __init__(self, cap_bytes: int = NO_CAP) -> None:
        super().__init__(cap_bytes)
        self.pending: dict[Block, None] = {}
        self._small: FreeList = []
        self._large: FreeList = []
        # First block of each segment, by address. New addresses are always the highest, so insertion order is address
        # order.
        self._heads: dict[int, Block] = {}
        self._next_address = SEGMENT_GRAIN

    def hold(self, segments: Iterable[SegmentView]) -> dict[int, Block]:
        """Begin with these segments, as after a snapshot of another allocator; the live blocks by their address."""
        live: dict[int, Block] = {}
        for view in segments:
            pool = self._small if view.small else self._large
            last: Block | None = None
            for seen in view.blocks:
                block = Block(pool, seen.address, seen.size)
                block.prev = last
                if last is None:
                    self._heads[view.address] = block
                else:
                    last.next = block
                last = block
                if seen.live:
                    block.live, block.requested = True, seen.requested
                    self.allocated += seen.size
                    self.requested += seen.requested
                    live[seen.address] = block
                else:
                    insort(pool, (seen.size, seen.address, block))
            self.reserved += view.size
        self.reset_peaks()
        return live

    def copied(self, cap_bytes: int) -> tuple["CachingAllocator", dict[int, Block]]:
        """Return an allocator in the same state under another cap, and its live blocks by their address."""
        other = CachingAllocator(cap_bytes)
        live = other.hold(self.snapshot())
        for name in ("peak_allocated", "peak_reserved", "num_oom", "num_retries", "denied", "_next_address"):
            setattr(other, name, getattr(self, name))
        return other, live

    def malloc(self, n_bytes: int) -> Block:
        """Return a block of at least `n_bytes`, or an empty block (size 0) for zero bytes.

        Raises `SimulatedOutOfMemoryError`; the cached segments have then been freed, as on a card.
        """
        if n_bytes <= SMALL_LIMIT:
            if n_bytes <= 0:
                return self._nothing(n_bytes)
            pool = self._small
            largest_unsplit = MIN_BLOCK - 1
        else:
            pool = self._large
            largest_unsplit = SMALL_LIMIT
        size = (n_bytes + MIN_BLOCK - 1) & -MIN_BLOCK

        at = bisect_left(pool, (size,))
        block = pool.pop(at)[2] if at < len(pool) else self._new_segment(pool, size, n_bytes)

        remaining = block.size - size
        if remaining > largest_unsplit:
            rest = Block(pool, block.address + size, remaining)
            rest.prev = block
            after = rest.next = block.next
            if after is not None:
                after.prev = rest
            block.next = rest
            block.size = size
            insort(pool, (remaining, rest.address, rest))
        else:
            size = block.size

        block.live = True
        block.requested = n_bytes
        self.requested += n_bytes
        self.allocated += size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return block

    def free(self, block: Block) -> None:
        """Take a block back and merge it with free neighbours. Raises `ValueError` for a block that is not live."""
        if not block.live:
            raise ValueError("free() of a block that is not live: it was freed before")
        block.live = False
        self.allocated -= block.size
        self.requested -= block.requested
        pool = block.pool

        before = block.prev
        after = block.next
        if after is not None and not after.live:
            del pool[bisect_left(pool, (after.size, after.address))]
            block.size += after.size
            after = block.next = after.next
            if after is not None:
                after.prev = block
        if before is not None and not before.live:
            del pool[bisect_left(pool, (before.size, before.address))]
            before.size += block.size
            before.next = after
            if after is not None:
                after.prev = before
            block = before
        if block.size:
            insort(pool, (block.size, block.address, block))

    def free_later(self, block: Block) -> None:
        """Takes a block back that another stream still uses (`Tensor.record_stream`): no request gets it as yet.

        It no longer counts as allocated. `complete` ends the wait; so does every return of cached segments, for which
        PyTorch waits until no stream uses them. Raises `ValueError` for a block that is not live.
        """
        if not block.live or block in self.pending:
            raise ValueError("free_later() of a block that is not live: it was freed before")
        self.pending[block] = None
        self.allocated -= block.size

    def complete(self, block: Block) -> None:
        """No stream uses the block any longer. Raises `ValueError` for a block that does not wait."""
        if block not in self.pending:
            raise ValueError("complete() of a block that does not wait")
        del self.pending[block]
        self.allocated += block.size
        self.free(block)

    def empty_cache(self) -> None:
        """Gives every segment without a live block back to the driver; a partly used one stays whole."""
        for block in tuple(self.pending):
            self.complete(block)
        for pool in (self._small, self._large):
            kept = []
            for entry in pool:
                block = entry[2]
                if block.prev is None and block.next is None:
                    self.reserved -= block.size
                    del self._heads[block.address]
                else:
                    kept.append(entry)
            pool[:] = kept

    def reset_peaks(self) -> None:
        """Reset both peaks to the current values."""
        self.peak_allocated = self.allocated
        self.peak_reserved = self.reserved

    def snapshot(self) -> tuple[SegmentView, ...]:
        """Every segment held, in order of address."""
        return tuple(self._view(head) for head in self._heads.values())

    def layout(self, owners: Mapping[Block, int]) -> tuple[int, ...]:
        """Return every segment and block as numbers, live blocks by their `owners`, addresses reduced to their order.

        The state of the allocator depends on nothing else: two allocators under one cap with equal layouts do the same
        for equal later requests.
        """
        numbers = []
        for head in self._heads.values():
            # No block has size 0, so 0 marks a new segment; the sum of its blocks shows its pool.
            numbers.append(0)
            block: Block | None = head
            while block is not None:
                numbers += (block.size, owners[block] if block.live else -1)
                block = block.next
        return tuple(numbers)

    def _nothing(self, n_bytes: int) -> Block:
        if n_bytes < 0:
            raise ValueError(f"malloc() of {n_bytes} bytes: a size cannot be negative")
        block = Block([], 0, 0)
        block.live = True
        return block

    def _new_segment(self, pool: FreeList, size: int, n_bytes: int) -> Block:
        if size <= SMALL_LIMIT:
            segment = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            segment = LARGE_SEGMENT
        else:
            segment = up_to_grain(size)
        self._require_room(segment, n_bytes)
        block = Block(pool, self._next_address, segment)
        self._heads[block.address] = block
        self._next_address += segment
        self.reserved += segment
        if self.reserved > self.peak_reserved:
            self.peak_reserved = self.reserved
        return block

    def _view(self, head: Block) -> SegmentView:
        blocks = []
        block: Block | None = head
        while block is not None:
            requested = block.requested if block.live else 0
            blocks.append(BlockView(address=block.address, size=block.size, requested=requested, live=block.live))
            block = block.next
        size = sum(b.size for b in blocks)
        return SegmentView(address=head.address, size=size, small=head.pool is self._small, blocks=tuple(blocks))
