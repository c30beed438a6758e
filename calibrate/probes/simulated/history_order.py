"""Gives the segments of a history new addresses, in the order in which they were taken from the driver.

Among free blocks of one size PyTorch 2.11 takes the one with the lowest address, and PyTorch 2.13 one of the segment
that was taken first. With these addresses both are the same, so that one model replays the histories of either.
"""

from bisect import bisect_right, insort

import msgspec

from calibrate.probes.simulated.recorded import Action, History, HistoryEntry, RecordedSegment

_GRAIN = 2 << 20
"""CUDA's segments begin at multiples of this."""


class _Segments:
    """The segments of the history that are held, by their address on the card, with their new address."""

    def __init__(self, free_address: int) -> None:
        self._next = free_address
        self._starts: list[int] = []
        self._held: dict[int, tuple[int, int]] = {}

    def take(self, address: int, size: int) -> None:
        insort(self._starts, address)
        self._held[address] = size, self._next
        self._next += -(-size // _GRAIN) * _GRAIN

    def give_back(self, address: int) -> None:
        # What was held before the history began keeps its address.
        if address in self._held:
            self._starts.remove(address)
            del self._held[address]

    def new(self, address: int) -> int:
        """Return the new address for one on the card."""
        place = bisect_right(self._starts, address) - 1
        if place >= 0:
            start = self._starts[place]
            size, now = self._held[start]
            if address < start + size:
                return now + address - start
        return address


def in_order_of_age(history: History) -> History:
    """Return a history with such addresses. Segments that were held before it began come first, as they are."""
    ends = [entry.addr + entry.size for entry in history.entries]
    ends += [segment.address + segment.total_size for segment in history.segments]
    segments = _Segments(-(-max(ends, default=0) // _GRAIN) * _GRAIN)
    entries: list[HistoryEntry] = []
    for entry in history.entries:
        if entry.action is Action.SEGMENT_ALLOC:
            segments.take(entry.addr, entry.size)
        entries.append(msgspec.structs.replace(entry, addr=segments.new(entry.addr)))
        if entry.action is Action.SEGMENT_FREE:
            segments.give_back(entry.addr)
    return History(entries=tuple(entries), segments=tuple(_moved(segment, segments) for segment in history.segments))


def _moved(segment: RecordedSegment, segments: _Segments) -> RecordedSegment:
    blocks = tuple(msgspec.structs.replace(block, address=segments.new(block.address)) for block in segment.blocks)
    return msgspec.structs.replace(segment, address=segments.new(segment.address), blocks=blocks)
