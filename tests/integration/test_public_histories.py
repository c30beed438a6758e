"""Histories of allocators that others recorded on their cards and published: the model does the same to the byte."""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.units import MIB
from calibrate.probes.simulated.history import replay_history
from calibrate.probes.simulated.history_start import state_before
from calibrate.probes.simulated.recorded import (
    Action,
    History,
    HistoryEntry,
    RecordedBlock,
    RecordedSegment,
    load_history,
)
from tests.references import NOT_HERE, REFERENCE

ACTIONS = {
    "a": Action.ALLOC,
    "q": Action.FREE_REQUESTED,
    "f": Action.FREE_COMPLETED,
    "S": Action.SEGMENT_ALLOC,
    "s": Action.SEGMENT_FREE,
}
"""The letters of the published files."""

PUBLISHED = sorted(REFERENCE.glob("allocator_histories/*.json.gz"))
VIRTUAL = sorted(REFERENCE.glob("virtual_histories/*.gz"))


def published(path: Path) -> tuple[History, Any]:
    """A history, and the segments and blocks that it begins with as its collector found them."""
    document = msgspec.json.decode(gzip.decompress(path.read_bytes()))
    blocks = sorted(document["end"]["blocks"])
    segments = tuple(
        RecordedSegment(
            address=address,
            total_size=size,
            segment_type="small" if small else "large",
            blocks=tuple(
                RecordedBlock(address=b[0], size=b[1], requested_size=b[2], state=b[3])
                for b in blocks
                if address <= b[0] < address + size
            ),
        )
        for address, size, small in document["end"]["segments"]
    )
    entries = tuple(HistoryEntry(action=ACTIONS[e[0]], addr=e[1], size=e[2]) for e in document["events"])
    return History(entries=entries, segments=segments), document["start"]


def some(paths: list[Path]) -> list[Any]:
    """The files as parameters, or one that is skipped."""
    found = [pytest.param(path, id=path.name.partition(".")[0]) for path in paths]
    return found or [pytest.param(REFERENCE, marks=pytest.mark.skip(reason=NOT_HERE))]


@pytest.mark.parametrize("path", some(PUBLISHED))
def test_a_published_history_of_a_card_is_done_again_to_the_byte(path: Path) -> None:
    history, start = published(path)
    found = replay_history(history)
    assert found.difference == ""
    assert found.entries == len(history.entries)
    views = [view for segments in state_before(history).values() for view in segments]
    assert sorted([v.address, v.size, int(v.small)] for v in views) == sorted(start["segments"])
    live = {b.address: b for view in views for b in view.blocks if b.live}
    assert {address: b.requested for address, b in live.items()} == {b[0]: b[2] for b in start["blocks"]}
    # Its collector leaves out a rest that is too short to be split off, where no later entry depends on it.
    assert all(0 <= live[address].size - size <= MIB for address, size, _ in start["blocks"])


@pytest.mark.parametrize("path", some(PUBLISHED))
def test_a_published_history_that_is_changed_is_noticed(path: Path) -> None:
    history, _ = published(path)
    entries = list(history.entries)
    allocated = {e.addr: n for n, e in enumerate(entries) if e.action is Action.ALLOC}
    came, gone = next(
        (allocated[e.addr], n)
        for n, e in enumerate(entries)
        if e.action is Action.FREE_COMPLETED and allocated.get(e.addr, n) < n
    )
    for number, entry in enumerate(entries[came : gone + 1], came):
        if entry.addr == entries[gone].addr and number != gone:
            entries[number] = msgspec.structs.replace(entry, addr=entry.addr + 512)
    entries[gone] = msgspec.structs.replace(entries[gone], addr=entries[gone].addr + 512)
    changed = msgspec.structs.replace(history, entries=tuple(entries))
    assert f"entry {came}: address" in replay_history(changed).difference


@pytest.mark.parametrize("path", some(VIRTUAL))
def test_a_history_of_pytorch_on_a_virtual_card_is_done_again_to_the_byte(path: Path) -> None:
    assert replay_history(load_history(path)).difference == ""
