"""Replays the allocations that PyTorch's allocator made on a real card in our model of it, and compares every byte.

A history may begin with memory in use (`history_start`). New segments of the model are put where the driver put them,
so even the choice between two free blocks of one size is compared; it goes by address, or by age (`history_order`).
"""

from collections.abc import Mapping, Sequence

import msgspec

from acestep.errors import InvalidInputError
from calibrate.probes.simulated.allocator import Block, CachingAllocator, SegmentView
from calibrate.probes.simulated.expandable_history import ExpandableReplay
from calibrate.probes.simulated.history_order import in_order_of_age
from calibrate.probes.simulated.history_start import state_before
from calibrate.probes.simulated.recorded import EXPANDABLE, Action, History, HistoryEntry, RecordedSegment


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison: `difference` is the first difference, or ""."""

    entries: int
    allocations: int
    segments: int
    peak_reserved: int
    difference: str

    @property
    def agrees(self) -> bool:
        """Whether every segment and every block was the same to the byte."""
        return not self.difference


class _DivergedError(Exception):
    """The model did something different from the card."""


def replay_history(history: History) -> Replayed:
    """Replay a history in the model, up to the first difference.

    Raises `InvalidInputError` for entries that do not belong to the segments at the end. A history of expandable
    segments must begin without memory in use.
    """
    if any(entry.action in EXPANDABLE for entry in history.entries):
        return _replayed_expandable(history)
    by_address = _replayed(history)
    if by_address.agrees:
        return by_address
    by_age = _replayed(in_order_of_age(history))
    # Where both differ, the one that went further says what is different.
    return by_age if by_age.agrees or by_age.allocations > by_address.allocations else by_address


def _replayed(history: History) -> Replayed:
    player = _Player(state_before(history))
    difference = ""
    try:
        for number, entry in enumerate(history.entries):
            player.play(number, entry)
        player.finish(history.segments)
    except _DivergedError as error:
        difference = str(error)
    return Replayed(
        entries=len(history.entries),
        allocations=player.allocations,
        segments=player.taken,
        peak_reserved=player.peak_reserved,
        difference=difference,
    )


def _replayed_expandable(history: History) -> Replayed:
    replay = ExpandableReplay()
    replay.play(history)
    return Replayed(
        entries=len(history.entries),
        allocations=replay.allocations,
        segments=replay.maps,
        peak_reserved=replay.peak_reserved,
        difference=replay.difference,
    )


class _Player:
    """The model's state: one allocator for each stream, because memory of one stream is never given to another."""

    def __init__(self, start: Mapping[int, Sequence[SegmentView]]) -> None:
        self.allocations = self.taken = 0
        self._streams = {stream: CachingAllocator() for stream in start}
        self._live = {
            address: (self._streams[stream], block)
            for stream, segments in start.items()
            for address, block in self._streams[stream].hold(segments).items()
        }
        self.peak_reserved = self._reserved()
        self._promised: dict[int, HistoryEntry] = {}
        self._given_back: dict[int, int] = {}
        self._number = 0

    def play(self, number: int, entry: HistoryEntry) -> None:
        self._number = number
        if entry.action is Action.SEGMENT_FREE:
            self._given_back[entry.addr] = entry.size
            return
        self._flush()
        if entry.action is Action.SEGMENT_ALLOC:
            self._promised[entry.stream] = entry
            self.taken += 1
        elif entry.action is Action.ALLOC:
            self._alloc(entry)
        elif entry.action is Action.FREE_REQUESTED:
            allocator, block = self._known(entry)
            allocator.free_later(block)
        elif entry.action is Action.FREE_COMPLETED:
            self._free(entry)

    def finish(self, segments: Sequence[RecordedSegment]) -> None:
        """Compare what is held at the end, segment by segment."""
        self._number += 1
        self._flush()
        modelled = {view.address: view for allocator in self._streams.values() for view in allocator.snapshot()}
        recorded = {segment.address: segment for segment in segments}
        self._same("segments held at the end", sorted(recorded), sorted(modelled))
        for address, segment in sorted(recorded.items()):
            self._same(f"segment {address:#x}", _recorded_blocks(segment), _modelled_blocks(modelled[address]))

    def _alloc(self, entry: HistoryEntry) -> None:
        allocator = self._streams.setdefault(entry.stream, CachingAllocator())
        promised = self._promised.pop(entry.stream, HistoryEntry(action=Action.SEGMENT_ALLOC))
        if promised.addr:
            allocator._next_address = promised.addr
        held = allocator.reserved
        block = allocator.malloc(entry.size)
        self._same(f"segment for {entry.size} bytes", promised.size, allocator.reserved - held)
        self._same(f"address of {entry.size} bytes", entry.addr, block.address)
        self._live[entry.addr] = allocator, block
        self.allocations += 1
        self.peak_reserved = max(self.peak_reserved, self._reserved())

    def _free(self, entry: HistoryEntry) -> None:
        allocator, block = self._known(entry)
        if block in allocator.pending:
            allocator.complete(block)
        else:
            allocator.free(block)
        del self._live[entry.addr]

    def _known(self, entry: HistoryEntry) -> tuple[CachingAllocator, Block]:
        """The block that an entry is about, and the allocator that it came from."""
        if (known := self._live.get(entry.addr)) is None:
            raise InvalidInputError("history", f"entry {self._number} frees {entry.addr:#x}, which is not allocated")
        return known

    def _reserved(self) -> int:
        return sum(each.reserved for each in self._streams.values())

    def _flush(self) -> None:
        """Free every segment without a live block, for all streams."""
        if not self._given_back:
            return
        before = self._held()
        for allocator in self._streams.values():
            allocator.empty_cache()
        after = self._held()
        gone = {address: size for address, size in before.items() if address not in after}
        self._same("segments given back", sorted(self._given_back.items()), sorted(gone.items()))
        self._given_back.clear()

    def _held(self) -> dict[int, int]:
        return {view.address: view.size for allocator in self._streams.values() for view in allocator.snapshot()}

    def _same(self, what: str, recorded: object, modelled: object) -> None:
        if recorded != modelled:
            raise _DivergedError(f"entry {self._number}: {what}: {recorded} on the card, {modelled} in the model")


def _recorded_blocks(segment: RecordedSegment) -> object:
    blocks = [
        (b.address, b.size, b.state != "inactive", b.requested_size if b.state != "inactive" else 0)
        for b in sorted(segment.blocks, key=lambda block: block.address)
    ]
    return segment.total_size, segment.segment_type == "small", blocks


def _modelled_blocks(view: SegmentView) -> object:
    return view.size, view.small, [(block.address, block.size, block.live, block.requested) for block in view.blocks]
