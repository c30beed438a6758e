"""PyTorch's own allocator on a virtual card: its books are the card's, and it holds to its cap."""

import random
from collections.abc import Iterator

import pytest

from tests.virtual.processes import CAPABILITIES, SHARED
from virtual_card.card import GIB, MIB
from virtual_card.controls import Control

torch = pytest.importorskip("torch")

GRAIN = 2 * MIB
CARD = "cuda:0"


def taken() -> int:
    """Bytes that the driver counts for this process alone."""
    free, total = torch.cuda.mem_get_info(CARD)
    return int(total - free)


def held(size: int) -> "torch.Tensor":
    return torch.empty(size, dtype=torch.uint8, device=CARD)


@pytest.fixture(autouse=True)
def _emptied() -> Iterator[None]:
    torch.zeros(1, device=CARD)
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    torch.cuda.empty_cache()


def test_each_card_has_its_name_size_and_capability() -> None:
    assert torch.cuda.device_count() == len(CAPABILITIES)
    for index, capability in enumerate(CAPABILITIES):
        properties = torch.cuda.get_device_properties(index)
        assert (properties.major, properties.minor) == capability
        assert properties.name.startswith("Virtual")
        assert properties.total_memory == 8 * GIB - 250 * MIB


def test_what_the_allocator_reserves_is_what_the_driver_gave() -> None:
    outside = taken() - torch.cuda.memory_reserved(0)
    chosen = random.Random(5)  # noqa: S311 reproducible
    blocks: list[torch.Tensor] = []
    for _ in range(300):
        if blocks and chosen.random() < 0.4:
            blocks.pop(chosen.randrange(len(blocks)))
        else:
            blocks.append(held(chosen.choice([100, 3000, 700_000, 3 * MIB, 15 * MIB])))
        if chosen.random() < 0.1:
            torch.cuda.empty_cache()
        assert taken() - torch.cuda.memory_reserved(0) == outside
    assert torch.cuda.memory_allocated(0) >= sum(block.numel() for block in blocks)
    del blocks
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated(0) == 0


def test_a_tensor_is_counted_in_512_bytes_and_a_large_one_gets_a_segment_of_its_own() -> None:
    before = torch.cuda.memory_reserved(0), torch.cuda.memory_allocated(0)
    small, large = held(513), held(100 * MIB + 1)
    assert torch.cuda.memory_allocated(0) - before[1] == 1024 + 100 * MIB + 512
    assert torch.cuda.memory_reserved(0) - before[0] == GRAIN + 102 * MIB
    del small, large


def test_a_cap_holds_to_the_byte_as_acestep_asks_for_it() -> None:
    """The fraction that comes back, times the total, is the cap: a quarter of a byte is right however torch rounds."""
    total = torch.cuda.get_device_properties(0).total_memory
    chosen = random.Random(11)  # noqa: S311 reproducible
    for _ in range(20_000):
        cap = chosen.randrange(1, total)
        torch.cuda.set_per_process_memory_fraction((cap + 0.25) / total, 0)
        assert round(torch.cuda.get_per_process_memory_fraction(0) * total) == cap


@pytest.mark.parametrize("cap", [GIB, 3 * GIB + 14 * MIB])
def test_under_a_cap_its_last_block_can_be_had_and_no_other(cap: int) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((cap + 0.25) / total, 0)
    room = cap - torch.cuda.memory_reserved(0)
    whole = held(room // GRAIN * GRAIN)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        held(20 * MIB)
    del whole
    torch.cuda.empty_cache()
    with pytest.raises(torch.OutOfMemoryError):
        held(room + GRAIN)


def test_out_of_memory_says_how_much_was_there_and_leaves_the_card_usable() -> None:
    before = taken()
    with pytest.raises(torch.OutOfMemoryError) as caught:
        held(9 * GIB)
    text = str(caught.value)
    assert "Tried to allocate 9.00 GiB" in text
    assert "total capacity of 7.76 GiB" in text
    assert "this process has" in text
    assert taken() == before
    assert held(GIB).numel() == GIB


def test_a_full_cache_is_emptied_before_an_allocation_fails() -> None:
    held(4 * GIB)
    assert torch.cuda.memory_reserved(0) >= 4 * GIB
    assert held(5 * GIB).numel() == 5 * GIB
    assert torch.cuda.memory_stats(0)["num_alloc_retries"] > 0


def test_one_failure_of_the_driver_is_made_good_by_the_retry_and_two_are_not() -> None:
    assert SHARED.machine is not None
    controls = SHARED.machine.controls
    for times, fits in ((1, True), (2, False)):
        torch.cuda.empty_cache()
        controls.set(Control.FAIL_ALLOCATION_TIMES, times)
        controls.set(Control.FAIL_ALLOCATION, 1)
        if fits:
            assert held(64 * MIB).numel() == 64 * MIB
        else:
            with pytest.raises(torch.OutOfMemoryError):
                held(64 * MIB)
        assert controls.get(Control.FAIL_ALLOCATION) == 0


def test_others_on_the_card_leave_less_of_it() -> None:
    assert SHARED.machine is not None
    free = torch.cuda.mem_get_info(0)[0]
    SHARED.machine.controls.set(Control.OTHERS_BYTES, 6 * GIB)
    try:
        assert torch.cuda.mem_get_info(0)[0] == free - 6 * GIB
        with pytest.raises(torch.OutOfMemoryError):
            held(2 * GIB)
    finally:
        SHARED.machine.controls.set(Control.OTHERS_BYTES, 0)
    assert held(2 * GIB).numel() == 2 * GIB


def test_blocks_of_a_stream_are_not_given_to_another_before_its_event() -> None:
    side = torch.cuda.Stream(device=0)
    with torch.cuda.stream(side):
        block = held(64 * MIB)
        place = block.data_ptr()
        del block
    other = held(64 * MIB)
    assert other.data_ptr() != place
    with torch.cuda.stream(side):
        assert held(64 * MIB).data_ptr() == place


def test_the_history_of_the_allocator_is_recorded() -> None:
    torch.cuda.memory._record_memory_history(max_entries=1000, device=0)
    try:
        block = held(32 * MIB)
        del block
        snapshot = torch.cuda.memory._snapshot(0)
    finally:
        torch.cuda.memory._record_memory_history(enabled=None, device=0)
    actions = [(event["action"], event["size"]) for event in snapshot["device_traces"][0]]
    for action in ("segment_alloc", "alloc", "free_requested", "free_completed"):
        assert (action, 32 * MIB) in actions


def test_page_locked_memory_is_page_locked_and_refused_where_the_system_refuses() -> None:
    assert SHARED.machine is not None
    host = torch.arange(1000).pin_memory()
    assert host.is_pinned()
    assert torch.equal(host.to(CARD, non_blocking=True).cpu(), torch.arange(1000))
    SHARED.machine.controls.set(Control.REFUSE_PAGE_LOCKING, 1)
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            torch.empty(64 * MIB, dtype=torch.uint8, pin_memory=True)
    finally:
        SHARED.machine.controls.set(Control.REFUSE_PAGE_LOCKING, 0)
    torch.cuda.synchronize()
