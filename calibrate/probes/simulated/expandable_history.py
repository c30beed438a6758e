"""Replays a history of expandable segments: the memory mapped and returned, and the place of every block in its pool.

Addresses are compared from the first block of each pool on, because the driver chooses where a segment begins.
"""

from acestep.errors import InvalidInputError
from calibrate.probes.simulated.expandable import ExpandableAllocator, ExpandableBlock
from calibrate.probes.simulated.recorded import Action, History, HistoryEntry


class ExpandableReplay:
    """The model's state, one allocator for each stream; `difference` is the first difference, or ""."""

    def __init__(self) -> None:
        self.allocations = self.maps = self.peak_reserved = 0
        self.difference = ""
        self._streams: dict[int, ExpandableAllocator] = {}
        self._bases: dict[object, int] = {}
        self._live: dict[int, tuple[ExpandableAllocator, ExpandableBlock]] = {}
        self._mapped = self._unmapped = 0

    def play(self, history: History) -> None:
        """Replay up to the first difference.

        Raises `InvalidInputError` for a history that frees what it did not allocate, as one does that begins with
        memory in use.
        """
        for number, entry in enumerate(history.entries):
            if entry.action is Action.SEGMENT_UNMAP:
                self._unmapped += entry.size
                continue
            self._return_pieces(number)
            if entry.action is Action.SEGMENT_MAP:
                self._mapped += entry.size
                self.maps += 1
            elif entry.action is Action.ALLOC:
                self._alloc(number, entry)
            elif entry.action is Action.FREE_COMPLETED:
                self._free(number, entry)
            if self.difference:
                return
        self._return_pieces(len(history.entries))
        held = sum(segment.total_size for segment in history.segments)
        self._compare(len(history.entries), "bytes mapped at the end", held, self._reserved())

    def _alloc(self, number: int, entry: HistoryEntry) -> None:
        allocator = self._streams.setdefault(entry.stream, ExpandableAllocator())
        held = allocator.reserved
        block = allocator.malloc(entry.size)
        self._live[entry.addr] = allocator, block
        base = self._bases.setdefault(block.pool, entry.addr - block.address)
        self._compare(number, f"bytes mapped for {entry.size}", self._mapped, allocator.reserved - held)
        self._compare(number, f"address of {entry.size} bytes", entry.addr, base + block.address)
        self._mapped = 0
        self.allocations += 1
        self.peak_reserved = max(self.peak_reserved, self._reserved())

    def _free(self, number: int, entry: HistoryEntry) -> None:
        if entry.addr not in self._live:
            raise InvalidInputError("history", f"entry {number} frees {entry.addr:#x}, which is not allocated")
        allocator, block = self._live.pop(entry.addr)
        allocator.free(block)

    def _return_pieces(self, number: int) -> None:
        if self._unmapped:
            held = self._reserved()
            for allocator in self._streams.values():
                allocator.empty_cache()
            self._compare(number, "bytes returned", self._unmapped, held - self._reserved())
            self._unmapped = 0

    def _reserved(self) -> int:
        return sum(allocator.reserved for allocator in self._streams.values())

    def _compare(self, number: int, what: str, recorded: int, modelled: int) -> None:
        if recorded != modelled and not self.difference:
            self.difference = f"entry {number}: {what}: {recorded} on the card, {modelled} in the model"
