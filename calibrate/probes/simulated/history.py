"""Replays the allocations that PyTorch's allocator made on a real card in our model of it, and compares every byte.

`torch.cuda.memory._snapshot` gives a history when `_record_memory_history` was on: every request, every segment taken
from the driver and returned, and at the end all segments with their blocks. The model's new segments get the addresses
that the driver chose, so that the choice between two free blocks of one size, which depends on addresses, is compared
too.
"""

import gzip
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from acestep.errors import InvalidInputError
from calibrate.probes.simulated.allocator import Block, CachingAllocator, SegmentView


class Action(StrEnum):
    """The action of an entry; sizes of `alloc` and of frees are the requested ones, not those of the block."""

    ALLOC = "alloc"
    FREE_REQUESTED = "free_requested"
    FREE_COMPLETED = "free_completed"
    SEGMENT_ALLOC = "segment_alloc"
    SEGMENT_FREE = "segment_free"
    SEGMENT_MAP = "segment_map"
    SEGMENT_UNMAP = "segment_unmap"
    SNAPSHOT = "snapshot"
    OOM = "oom"


_EXPANDABLE: Final = (Action.SEGMENT_MAP, Action.SEGMENT_UNMAP)


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of a history, with the fields that are used; PyTorch gives more."""

    action: Action
    addr: int = 0
    size: int = 0
    stream: int = 0


class RecordedBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A block of a segment; `inactive` ones are free, all others are not."""

    address: int
    size: int
    state: str
    requested_size: int = 0


class RecordedSegment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Memory from one call of the driver, with its blocks in order of address."""

    address: int
    total_size: int
    segment_type: str
    blocks: tuple[RecordedBlock, ...]
    stream: int = 0


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of one card, and the segments after the last entry."""

    entries: tuple[HistoryEntry, ...]
    segments: tuple[RecordedSegment, ...]


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


def history_of(snapshot: Mapping[str, Any], device: int = 0) -> History:
    """Return the result of `torch.cuda.memory._snapshot` for one card. Raises `InvalidInputError` for anything else."""
    try:
        entries = msgspec.convert(snapshot["device_traces"][device], tuple[HistoryEntry, ...])
        segments = [s for s in snapshot["segments"] if s.get("device", device) == device]
        return History(entries=entries, segments=msgspec.convert(segments, tuple[RecordedSegment, ...]))
    except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInputError("snapshot", f"is none of PyTorch's ({error})") from None


def load_history(path: Path) -> History:
    """Read a history that `store_history` wrote."""
    try:
        return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=History)
    except (OSError, EOFError, msgspec.DecodeError) as error:
        raise InvalidInputError(path, f"is no allocation history ({error})") from None


def store_history(history: History, path: Path) -> None:
    """Write a history as packed JSON; the same bytes for the same history."""
    path.write_bytes(gzip.compress(msgspec.json.encode(history), mtime=0))


def replay_history(history: History) -> Replayed:
    """Replay a history in the model, up to the first difference.

    Raises `InvalidInputError` for a history that began with memory in use, or of an allocator with expandable segments.
    """
    player = _Player()
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


class _Player:
    """The model's state: one allocator for each stream, because memory of one stream is never given to another."""

    def __init__(self) -> None:
        self.allocations = self.taken = self.peak_reserved = 0
        self._streams: dict[int, CachingAllocator] = {}
        self._live: dict[int, tuple[int, Block]] = {}
        self._promised: dict[int, HistoryEntry] = {}
        self._given_back: dict[int, int] = {}
        self._number = 0

    def play(self, number: int, entry: HistoryEntry) -> None:
        self._number = number
        if entry.action in _EXPANDABLE:
            raise InvalidInputError(
                "history", "is of expandable segments, which probes do not use and are not modelled"
            )
        if entry.action is Action.SEGMENT_FREE:
            self._given_back[entry.addr] = entry.size
            return
        self._flush()
        if entry.action is Action.SEGMENT_ALLOC:
            self._promised[entry.stream] = entry
            self.taken += 1
        elif entry.action is Action.ALLOC:
            self._alloc(entry)
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
        self._live[entry.addr] = entry.stream, block
        self.allocations += 1
        self.peak_reserved = max(self.peak_reserved, sum(each.reserved for each in self._streams.values()))

    def _free(self, entry: HistoryEntry) -> None:
        if entry.addr not in self._live:
            raise InvalidInputError(
                "history",
                f"frees {entry.addr:#x} at entry {self._number}, which it never saw allocated; begin to record before"
                " anything is on the card, and with room for every entry",
            )
        stream, block = self._live.pop(entry.addr)
        self._streams[stream].free(block)

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
