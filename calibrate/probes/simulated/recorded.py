"""A history of PyTorch's allocator as `torch.cuda.memory._snapshot` gives it, and its file.

The snapshot holds a history when `_record_memory_history` was on: every request, every segment taken from the driver
and given back, and all segments with their blocks at the end.
"""

import gzip
import zlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from acestep.errors import InvalidInputError


class Action(StrEnum):
    """What an entry says was done; sizes of `alloc` and of frees are those asked for, not those of the block."""

    ALLOC = "alloc"
    FREE_REQUESTED = "free_requested"
    FREE_COMPLETED = "free_completed"
    SEGMENT_ALLOC = "segment_alloc"
    SEGMENT_FREE = "segment_free"
    SEGMENT_MAP = "segment_map"
    SEGMENT_UNMAP = "segment_unmap"
    SNAPSHOT = "snapshot"
    OOM = "oom"


EXPANDABLE: Final = (Action.SEGMENT_MAP, Action.SEGMENT_UNMAP)


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of a history, as far as it is used; PyTorch gives more."""

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
    """The entries of one card, and the segments when the last of them had been made."""

    entries: tuple[HistoryEntry, ...]
    segments: tuple[RecordedSegment, ...]


def history_of(snapshot: Mapping[str, Any], device: int = 0) -> History:
    """What `torch.cuda.memory._snapshot` returned, for one card. Raises `InvalidInputError` for anything else."""
    try:
        entries = msgspec.convert(snapshot["device_traces"][device], tuple[HistoryEntry, ...])
        segments = [s for s in snapshot["segments"] if s.get("device", device) == device]
        return History(entries=entries, segments=msgspec.convert(segments, tuple[RecordedSegment, ...]))
    except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInputError("snapshot", f"is none of PyTorch's ({error})") from None


def load_history(path: Path) -> History:
    """A history that `store_history` wrote. Raises `InvalidInputError` for a file that is none."""
    try:
        return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=History)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # a ValueError: no JSON, other fields, or not UTF-8
        raise InvalidInputError(path, f"is no allocation history ({error})") from None


def store_history(history: History, path: Path) -> None:
    """Write a history as packed JSON; the same bytes for the same history."""
    path.write_bytes(gzip.compress(msgspec.json.encode(history), mtime=0))
