"""A card's allocation history is replayed in the model, and every different byte is found.

No card wrote the histories here. The first is written by hand in the format that `torch.cuda.memory._snapshot`
documents, with the addresses and sizes that PyTorch's published rules give; the others are the model's own.
"""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import InvalidInputError
from acestep.units import KIB, MIB
from calibrate.probes.simulated.allocator import Block, CachingAllocator
from calibrate.probes.simulated.history import replay_history
from calibrate.probes.simulated.recorded import (
    Action,
    History,
    HistoryEntry,
    RecordedBlock,
    RecordedSegment,
    history_of,
    load_history,
    store_history,
)

SMALL, LARGE, OWN, OTHER = 0x7F0000000000, 0x7F0000200000, 0x7EFF00000000, 0x7E0000000000


def entry(action: str, addr: int = 0, size: int = 0, stream: int = 0) -> dict[str, Any]:
    return {
        "action": action,
        "addr": addr,
        "size": size,
        "stream": stream,
        "frames": [],
        "time_us": 1,
        "pool_id": (0, 0),
    }


def block(address: int, size: int, state: str = "inactive", requested: int = 0) -> dict[str, Any]:
    return {"address": address, "size": size, "state": state, "requested_size": requested, "frames": []}


def segment(address: int, size: int, kind: str, *blocks: dict[str, Any], stream: int = 0) -> dict[str, Any]:
    return {
        "device": 0,
        "address": address,
        "total_size": size,
        "stream": stream,
        "segment_type": kind,
        "segment_pool_id": (0, 0),
        "allocated_size": 0,
        "active_size": 0,
        "blocks": list(blocks),
    }


def by_hand() -> dict[str, Any]:
    """Both pools, a split, a merge, a flush by a full card, a copy on a second stream, and a late free."""
    trace = [
        entry("segment_alloc", SMALL, 2 * MIB),
        entry("alloc", SMALL, 1000),
        entry("alloc", SMALL + 1024, 300),
        entry("segment_alloc", LARGE, 20 * MIB),
        entry("alloc", LARGE, 3 * MIB),
        entry("alloc", LARGE + 3 * MIB, 5 * MIB),
        entry("free_requested", LARGE, 3 * MIB),
        entry("free_completed", LARGE, 3 * MIB),
        # The gap of 3 MiB is the smallest that is large enough; what it leaves is over 1 MiB, so it is split off.
        entry("alloc", LARGE, 3 * MIB // 2),
        entry("segment_alloc", OWN, 14 * MIB),
        entry("alloc", OWN, 13 * MIB),
        entry("free_requested", OWN, 13 * MIB),
        entry("free_completed", OWN, 13 * MIB),
        entry("segment_free", OWN, 14 * MIB),
        entry("segment_alloc", OTHER, 20 * MIB, stream=7),
        entry("alloc", OTHER, 2 * MIB, stream=7),
        entry("free_requested", OTHER, 2 * MIB, stream=7),
        {"action": "oom", "size": 1 << 40, "stream": 0, "device_free": 12345, "frames": []},
        entry("snapshot"),
    ]
    held = [
        segment(
            SMALL,
            2 * MIB,
            "small",
            block(SMALL, 1024, "active_allocated", 1000),
            block(SMALL + 1024, 512, "active_allocated", 300),
            block(SMALL + 1536, 2 * MIB - 1536),
        ),
        segment(
            LARGE,
            20 * MIB,
            "large",
            block(LARGE, 3 * MIB // 2, "active_allocated", 3 * MIB // 2),
            block(LARGE + 3 * MIB // 2, 3 * MIB // 2),
            block(LARGE + 3 * MIB, 5 * MIB, "active_allocated", 5 * MIB),
            block(LARGE + 8 * MIB, 12 * MIB),
        ),
        segment(
            OTHER,
            20 * MIB,
            "large",
            block(OTHER, 2 * MIB, "active_awaiting_free", 2 * MIB),
            block(OTHER + 2 * MIB, 18 * MIB),
            stream=7,
        ),
    ]
    return {"segments": held, "device_traces": [trace], "allocator_settings": {}}


def test_a_hand_written_history_is_replayed_to_the_byte() -> None:
    found = replay_history(history_of(by_hand()))
    assert found.difference == ""
    assert (found.allocations, found.segments, found.peak_reserved) == (7, 4, 42 * MIB)


@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        (0, {"size": 20 * MIB}, "entry 1: segment for 1000 bytes"),
        (8, {"addr": LARGE + 8 * MIB}, "entry 8: address of 1572864 bytes"),
        (8, {"size": 4 * MIB}, "entry 8: address of 4194304 bytes"),
        (9, {"action": "snapshot"}, "entry 4: segment for 3145728 bytes: 20971520 on the card, 0 in the model"),
        (13, {"addr": LARGE}, "segments given back"),
        (13, {"action": "snapshot"}, "segments held at the end"),
        (7, {"action": "snapshot"}, "entry 8: address"),
        (16, {"action": "free_completed"}, f"segment {OTHER:#x}"),
    ],
)
def test_every_difference_is_found_where_it_occurs(number: int, changes: dict[str, Any], words: str) -> None:
    snapshot = by_hand()
    snapshot["device_traces"][0][number] |= changes
    assert words in replay_history(history_of(snapshot)).difference


def test_a_last_state_that_differs_is_noticed() -> None:
    for change in ({"state": "inactive"}, {"size": 4 * MIB}, {"requested_size": 7}):
        snapshot = by_hand()
        snapshot["segments"][1]["blocks"][0] |= change
        assert f"segment {LARGE:#x}" in replay_history(history_of(snapshot)).difference


@pytest.mark.parametrize(("address", "size"), [(0x1000, 512), (LARGE, 30 * MIB)])
def test_entries_that_cannot_have_led_to_the_end_are_refused(address: int, size: int) -> None:
    snapshot = by_hand()
    snapshot["device_traces"][0] = [entry("free_completed", address, size)]
    with pytest.raises(InvalidInputError, match=r"in no segment|overlaps"):
        replay_history(history_of(snapshot))


def test_a_history_that_begins_with_memory_in_use_is_done_again() -> None:
    snapshot = by_hand()
    for _ in range(len(snapshot["device_traces"][0])):
        del snapshot["device_traces"][0][0]
        assert replay_history(history_of(snapshot)).difference == ""


def test_a_block_that_is_freed_but_still_used_by_a_stream_is_not_handed_out() -> None:
    """The second request of 4 MiB needs a segment of its own; the third gets the first one's block, freed by then."""
    first, second = entry("alloc", LARGE, 4 * MIB), entry("alloc", OTHER, 19 * MIB)
    trace = [
        entry("segment_alloc", LARGE, 20 * MIB),
        first,
        entry("alloc", LARGE + 4 * MIB, 16 * MIB),
        entry("free_requested", LARGE, 4 * MIB),
        entry("segment_alloc", OTHER, 20 * MIB),
        second | {"size": 4 * MIB},
        entry("free_completed", LARGE, 4 * MIB),
        entry("alloc", LARGE, 4 * MIB),
    ]
    full = [
        block(LARGE, 4 * MIB, "active_allocated", 4 * MIB),
        block(LARGE + 4 * MIB, 16 * MIB, "active_allocated", 16 * MIB),
    ]
    rest = [block(OTHER, 4 * MIB, "active_allocated", 4 * MIB), block(OTHER + 4 * MIB, 16 * MIB)]
    held = [segment(LARGE, 20 * MIB, "large", *full), segment(OTHER, 20 * MIB, "large", *rest)]
    found = replay_history(history_of({"segments": held, "device_traces": [trace]}))
    assert found.difference == ""
    too_early = [*trace[:4], trace[6], *trace[4:6], trace[7]]
    assert "entry 6" in replay_history(history_of({"segments": held, "device_traces": [too_early]})).difference


def of_expandable() -> dict[str, Any]:
    """By hand: 3 and 25 MiB at the start of a segment, then the second freed, its whole piece returned, 18 MiB more."""
    at, piece = LARGE, 20 * MIB
    trace = [
        entry("segment_map", at, piece),
        entry("alloc", at, 3 * MIB),
        entry("segment_map", at + piece, piece),
        entry("alloc", at + 3 * MIB, 25 * MIB),
        entry("free_requested", at + 3 * MIB, 25 * MIB),
        entry("free_completed", at + 3 * MIB, 25 * MIB),
        entry("segment_unmap", at + piece, piece),
        entry("segment_map", at + piece, piece),
        entry("alloc", at + 3 * MIB, 18 * MIB),
    ]
    blocks = [
        block(at, 3 * MIB, "active_allocated", 3 * MIB),
        block(at + 3 * MIB, 18 * MIB, "active_allocated", 18 * MIB),
        block(at + 21 * MIB, 19 * MIB),
    ]
    return {"segments": [segment(at, 40 * MIB, "large", *blocks)], "device_traces": [trace]}


def test_a_history_of_expandable_segments_is_replayed() -> None:
    found = replay_history(history_of(of_expandable()))
    assert found.difference == ""
    assert (found.allocations, found.segments, found.peak_reserved) == (3, 3, 40 * MIB)


@pytest.mark.parametrize(
    ("number", "field", "change", "said"),
    [
        (2, "size", 20 * MIB, "bytes mapped"),
        (3, "addr", 2 * MIB, "address"),
        (6, "size", -2 * MIB, "bytes returned"),
        (7, "size", 20 * MIB, "bytes mapped"),
    ],
)
def test_a_history_of_expandable_segments_that_differs_is_found(
    number: int, field: str, change: int, said: str
) -> None:
    snapshot = of_expandable()
    snapshot["device_traces"][0][number][field] += change
    if field == "addr":
        snapshot["device_traces"][0][4]["addr"] += change
        snapshot["device_traces"][0][5]["addr"] += change
    assert said in replay_history(history_of(snapshot)).difference


def test_a_history_of_expandable_segments_begins_without_memory_in_use() -> None:
    snapshot = of_expandable()
    del snapshot["device_traces"][0][3]
    with pytest.raises(InvalidInputError, match="not allocated"):
        replay_history(history_of(snapshot))


@pytest.mark.parametrize("snapshot", [{}, {"device_traces": []}, {"device_traces": [[{"action": "sings"}]]}, []])
def test_what_is_no_snapshot_is_refused(snapshot: Any) -> None:
    with pytest.raises(InvalidInputError, match="none of PyTorch"):
        history_of(snapshot)


class Noting:
    """The allocator model, with PyTorch's notes of what it did."""

    def __init__(self) -> None:
        self.model = CachingAllocator()
        self.entries: list[HistoryEntry] = []

    def alloc(self, n_bytes: int) -> Block:
        before = {view.address for view in self.model.snapshot()}
        found = self.model.malloc(n_bytes)
        new = [view for view in self.model.snapshot() if view.address not in before]
        self.entries += [HistoryEntry(action=Action.SEGMENT_ALLOC, addr=view.address, size=view.size) for view in new]
        self.entries.append(HistoryEntry(action=Action.ALLOC, addr=found.address, size=n_bytes))
        return found

    def free(self, gone: Block) -> None:
        entry = HistoryEntry(action=Action.FREE_COMPLETED, addr=gone.address, size=gone.requested)
        self.entries += [msgspec.structs.replace(entry, action=Action.FREE_REQUESTED), entry]
        self.model.free(gone)

    def empty(self) -> None:
        held = {view.address: view.size for view in self.model.snapshot()}
        self.model.empty_cache()
        for view in self.model.snapshot():
            del held[view.address]
        self.entries += [HistoryEntry(action=Action.SEGMENT_FREE, addr=a, size=size) for a, size in held.items()]

    def history(self) -> History:
        segments = tuple(
            RecordedSegment(
                address=view.address,
                total_size=view.size,
                segment_type="small" if view.small else "large",
                blocks=tuple(
                    RecordedBlock(
                        address=b.address,
                        size=b.size,
                        state="active_allocated" if b.live else "inactive",
                        requested_size=b.requested,
                    )
                    for b in view.blocks
                ),
            )
            for view in self.model.snapshot()
        )
        return History(entries=tuple(self.entries), segments=segments)


steps = st.lists(st.integers(-3, 60 * MIB) | st.sampled_from([-3, -2, 512, 600 * KIB, 3 * MIB, 12 * MIB]), max_size=60)


@given(steps, st.floats(0, 1))
def test_whatever_was_done_is_done_again_from_any_entry_on(steps: list[int], after: float) -> None:
    noting = Noting()
    live: list[Block] = []
    for step in steps:
        if step > 0:
            live.append(noting.alloc(step))
        elif step == -3:
            noting.empty()
        elif live:
            noting.free(live.pop(len(live) * -step // 4))
    history = noting.history()
    assert replay_history(history).difference == ""
    # The trace of a free has two entries, and that of a new segment goes with the request for it.
    starts = [number for number, each in enumerate(history.entries) if each.action is Action.FREE_REQUESTED]
    first = starts[int(after * (len(starts) - 1))] if starts else 0
    assert replay_history(msgspec.structs.replace(history, entries=history.entries[first:])).difference == ""


def test_a_stored_history_is_the_same_when_read(tmp_path: Path) -> None:
    history = history_of(by_hand())
    for name in ("one", "two"):
        store_history(history, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert load_history(tmp_path / "one") == history


PACKED = gzip.compress(b'{"entries": [], "segments": []}', mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        PACKED[:-9],
        PACKED[:12] + b"\xff" * 8 + PACKED[20:],
        gzip.compress(b'"\xff"', mtime=0),
        gzip.compress(b"[]", mtime=0),
    ],
)
def test_a_file_that_is_no_history_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(content)
    with pytest.raises(InvalidInputError, match="no allocation history"):
        load_history(tmp_path / "one")
