"""What an allocator held before the first entry of a history, found by undoing the entries from the end. Pure.

PyTorch keeps only the last entries of a long history, and many programs begin to record when the weights are loaded.
The end names every segment and block; each entry is undone in turn. Only the size of a block that is freed and never
allocated within the history is unknown: on top of the bytes asked for it may hold a rest that was too small to split.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

import msgspec

from acestep.errors import InvalidInputError
from acestep.limits.workspace import SMALL_LIMIT
from acestep.units import ceil_div
from calibrate.probes.simulated.allocator import MIN_BLOCK, SMALL_SEGMENT, BlockView, SegmentView
from calibrate.probes.simulated.recorded import Action, History, HistoryEntry, RecordedSegment


class _Held(msgspec.Struct, frozen=True, kw_only=True):
    """A live block: the bytes asked for, and its size, None where it is not known."""

    address: int
    requested: int
    size: int | None = None

    @property
    def least_end(self) -> int:
        """The address behind the smallest block that this one can be."""
        return self.address + (self.size or ceil_div(self.requested, MIN_BLOCK) * MIN_BLOCK)


def state_before(history: History) -> dict[int, tuple[SegmentView, ...]]:
    """The segments that were held before the first entry, by stream; empty where nothing was.

    Raises `InvalidInputError` where no such state can be. The replay finds whether the entries lead from it to the end.
    """
    segments = {segment.address: segment for segment in history.segments}
    live = {held.address: held for segment in history.segments for held in _held(segment)}
    for entry in reversed(history.entries):
        match entry.action:
            case Action.ALLOC:
                live.pop(entry.addr, None)
            case Action.FREE_COMPLETED:
                live[entry.addr] = _Held(address=entry.addr, requested=entry.size)
            case Action.SEGMENT_ALLOC:
                segments.pop(entry.addr, None)
            case Action.SEGMENT_FREE:
                segments[entry.addr] = _segment(entry)
            case _:
                pass
    return _by_stream(segments.values(), live, _ends(history.entries, live))


def _held(segment: RecordedSegment) -> Iterable[_Held]:
    for block in segment.blocks:
        if block.state != "inactive":
            yield _Held(address=block.address, requested=block.requested_size, size=block.size)


def _segment(entry: HistoryEntry) -> RecordedSegment:
    kind = "small" if entry.size == SMALL_SEGMENT else "large"
    return RecordedSegment(address=entry.addr, total_size=entry.size, segment_type=kind, blocks=(), stream=entry.stream)


def _ends(entries: Iterable[HistoryEntry], live: Mapping[int, _Held]) -> dict[int, int]:
    """Where blocks of unknown size end, as far as a block that begins close behind one says so while it lives."""
    open_blocks = sorted(address for address, held in live.items() if held.size is None)
    ends: dict[int, int] = {}
    for entry in entries:
        if entry.action is Action.ALLOC:
            at = bisect_right(open_blocks, entry.addr) - 1
            if at >= 0 and 0 <= entry.addr - live[open_blocks[at]].least_end <= SMALL_LIMIT:
                ends.setdefault(open_blocks[at], entry.addr)
        elif entry.action is Action.FREE_COMPLETED:
            at = bisect_left(open_blocks, entry.addr)
            if at < len(open_blocks) and open_blocks[at] == entry.addr:
                del open_blocks[at]
    return ends


def _by_stream(
    segments: Iterable[RecordedSegment], live: Mapping[int, _Held], ends: Mapping[int, int]
) -> dict[int, tuple[SegmentView, ...]]:
    ordered = sorted(live)
    views: dict[int, list[SegmentView]] = {}
    placed = 0
    for segment in sorted(segments, key=lambda each: each.address):
        inside = ordered[
            bisect_left(ordered, segment.address) : bisect_left(ordered, segment.address + segment.total_size)
        ]
        placed += len(inside)
        view = _view(segment, [live[address] for address in inside], ends)
        views.setdefault(segment.stream, []).append(view)
    if placed != len(live):
        raise InvalidInputError("history", f"has {len(live) - placed} blocks, allocated before it began, in no segment")
    return {stream: tuple(found) for stream, found in views.items()}


def _view(segment: RecordedSegment, inside: list[_Held], ends: Mapping[int, int]) -> SegmentView:
    """A segment at the start: its live blocks, and free blocks between them."""
    small = segment.segment_type == "small"
    stop = segment.address + segment.total_size
    blocks: list[BlockView] = []
    address = segment.address
    for number, held in enumerate(inside):
        following = inside[number + 1].address if number + 1 < len(inside) else stop
        if address < held.address:
            blocks.append(BlockView(address=address, size=held.address - address, requested=0, live=False))
        end = held.least_end
        if held.size is None and not small and end <= following:
            # What is free in the large pool is always longer than what is too short to be split off.
            end = following if following - end <= SMALL_LIMIT else ends.get(held.address, end)
        if not held.address < end <= following:
            raise InvalidInputError(
                "history", f"the block at {held.address:#x} overlaps another one or its segment's end"
            )
        blocks.append(BlockView(address=held.address, size=end - held.address, requested=held.requested, live=True))
        address = end
    if address < stop:
        blocks.append(BlockView(address=address, size=stop - address, requested=0, live=False))
    return SegmentView(address=segment.address, size=segment.total_size, small=small, blocks=tuple(blocks))
