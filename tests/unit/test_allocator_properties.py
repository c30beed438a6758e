"""What holds for the allocator whatever is asked of it, and its agreement with a slow, plain transcription."""

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.units import KIB, MIB, ceil_div
from calibrate.probes.simulated.allocator import NO_CAP, Block, CachingAllocator, SimulatedOutOfMemoryError

SIZES = (
    0,
    1,
    700,
    300 * KIB,
    MIB,
    MIB + 1,
    3 * MIB,
    8 * MIB,
    9 * MIB,
    10 * MIB,
    11 * MIB,
    13 * MIB,
    19 * MIB,
    33 * MIB,
)

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), st.integers(2, 9).map(lambda n: n * MIB)),
        st.tuples(st.just("malloc"), st.sampled_from(SIZES)),
        st.tuples(st.just("malloc"), st.integers(1, 40 * MIB)),
        st.tuples(st.just("free"), st.integers(0, 30)),
        st.tuples(st.just("empty_cache"), st.just(0)),
    ),
    max_size=80,
)
CAPS = st.one_of(st.just(NO_CAP), st.integers(0, 200 * MIB))


class PlainAllocator:
    """The same rules with nothing but lists: segments of [size, owner] blocks, searched from end to end."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.segments: list[tuple[bool, list[list[int]]]] = []
        self.serial = 0

    @property
    def reserved(self) -> int:
        return sum(size for _, blocks in self.segments for size, _ in blocks)

    @property
    def allocated(self) -> int:
        return sum(size for _, blocks in self.segments for size, owner in blocks if owner)

    def malloc(self, n_bytes: int) -> int | None:
        """A number for the block, 0 for no bytes, None where they do not fit."""
        if not n_bytes:
            return 0
        size = ceil_div(n_bytes, 512) * 512
        small = size <= MIB
        fitting = [
            (block[0], at, inside)
            for at, (is_small, blocks) in enumerate(self.segments)
            for inside, block in enumerate(blocks)
            if is_small == small and not block[1] and block[0] >= size
        ]
        if fitting:
            _, at, inside = min(fitting)
        else:
            length = 2 * MIB if small else 20 * MIB if size < 10 * MIB else ceil_div(size, 2 * MIB) * 2 * MIB
            if self.reserved + length > self.cap:
                self.empty_cache()
            if self.reserved + length > self.cap:
                return None
            self.segments.append((small, [[length, 0]]))
            at, inside = len(self.segments) - 1, 0
        blocks = self.segments[at][1]
        rest = blocks[inside][0] - size
        self.serial += 1
        if rest >= 512 if small else rest > MIB:
            blocks[inside : inside + 1] = [[size, self.serial], [rest, 0]]
        else:
            blocks[inside][1] = self.serial
        return self.serial

    def free(self, serial: int) -> None:
        for _, blocks in self.segments:
            merged: list[list[int]] = []
            for size, owner in blocks:
                owner = 0 if owner == serial else owner
                if merged and not owner and not merged[-1][1]:
                    merged[-1][0] += size
                else:
                    merged.append([size, owner])
            blocks[:] = merged

    def empty_cache(self) -> None:
        self.segments = [(small, blocks) for small, blocks in self.segments if len(blocks) > 1 or blocks[0][1]]


def check(allocator: CachingAllocator, held: list[Block]) -> None:
    """What a snapshot must look like at any time."""
    end = 0
    live = {}
    for segment in allocator.snapshot():
        assert segment.address >= end, "segments overlap or are out of order"
        end = segment.address
        for before, block in zip((None, *segment.blocks), segment.blocks, strict=False):
            assert block.address == end, "blocks overlap or leave a gap"
            assert block.live or before is None or before.live, "two free neighbours were not merged"
            end += block.size
            if block.live:
                live[block.address] = block
        assert end == segment.address + segment.size
    owned = [block for block in held if block.size]
    assert live.keys() == {block.address for block in owned}
    assert len(live) == len(owned), "two handles share a block"
    assert all(live[block.address].requested == block.requested <= block.size for block in owned)
    assert allocator.allocated == sum(block.size for block in owned) <= allocator.reserved <= allocator.cap
    assert allocator.requested == sum(block.requested for block in owned)
    assert allocator.reserved == sum(segment.size for segment in allocator.snapshot()) <= allocator.peak_reserved
    assert allocator.allocated <= allocator.peak_allocated <= allocator.peak_reserved


def carry_out(
    allocator: CachingAllocator, operations: list[tuple[str, int]], after: Callable[[list[Block]], None]
) -> list[Block]:
    """Carry out some operations, calling `after` each of them with the blocks held; return those held at the end."""
    held: list[Block] = []
    for operation, argument in operations:
        if operation == "malloc":
            with suppress(SimulatedOutOfMemoryError):
                held.append(allocator.malloc(argument))
        elif operation == "free" and held:
            allocator.free(held.pop(argument % len(held)))
        elif operation == "empty_cache":
            allocator.empty_cache()
        after(held)
    return held


@given(operations=OPERATIONS, cap=CAPS)
def test_blocks_never_overlap_and_every_byte_is_accounted_for(operations: list[tuple[str, int]], cap: int) -> None:
    allocator = CachingAllocator(cap)
    carry_out(allocator, operations, lambda held: check(allocator, held))


@given(operations=OPERATIONS, cap=CAPS)
def test_freeing_everything_merges_back_to_whole_segments(operations: list[tuple[str, int]], cap: int) -> None:
    allocator = CachingAllocator(cap)
    for block in carry_out(allocator, operations, lambda _: None):
        allocator.free(block)
    assert all(len(segment.blocks) == 1 and not segment.blocks[0].live for segment in allocator.snapshot())
    allocator.empty_cache()
    assert (allocator.allocated, allocator.requested, allocator.reserved) == (0, 0, 0)


@settings(max_examples=300)
@given(operations=OPERATIONS, cap=CAPS)
def test_the_allocator_does_what_a_plain_transcription_of_the_rules_does(
    operations: list[tuple[str, int]], cap: int
) -> None:
    allocator, plain = CachingAllocator(cap), PlainAllocator(cap)
    held: list[tuple[Block, int]] = []
    for operation, argument in operations:
        if operation == "malloc":
            serial = plain.malloc(argument)
            try:
                block = allocator.malloc(argument)
            except SimulatedOutOfMemoryError:
                assert serial is None
            else:
                assert serial is not None
                held.append((block, serial))
        elif operation == "free" and held:
            block, serial = held.pop(argument % len(held))
            allocator.free(block)
            plain.free(serial)
        elif operation == "empty_cache":
            allocator.empty_cache()
            plain.empty_cache()
        ours = [[(block.size, block.live) for block in segment.blocks] for segment in allocator.snapshot()]
        theirs = [[(size, owner > 0) for size, owner in blocks] for _, blocks in plain.segments]
        assert ours == theirs
        assert (allocator.allocated, allocator.reserved) == (plain.allocated, plain.reserved)
