"""Which of several free blocks of one size is taken, in the histories of either kind of PyTorch."""

import pytest

from acestep.units import MIB
from calibrate.probes.simulated.history import replay_history
from calibrate.probes.simulated.recorded import history_of

LOW = 0x7F0000000000
TAKEN = ("segment_alloc", "alloc")
FREED = ("free_requested", "free_completed")
STATES = {True: "active_allocated", False: "inactive"}


@pytest.mark.parametrize("chosen", ["lowest address", "oldest"])
@pytest.mark.parametrize("first_is_lower", [True, False])
def test_either_order_of_equal_free_blocks_is_replayed_and_no_third(chosen: str, first_is_lower: bool) -> None:
    """PyTorch 2.11 takes the free block with the lowest address, PyTorch 2.13 that of the oldest segment."""
    size = 20 * MIB
    first, second = (LOW, LOW + 4 * size) if first_is_lower else (LOW + 4 * size, LOW)
    taken = min(first, second) if chosen == "lowest address" else first
    entries = [
        *({"action": action, "addr": at, "size": size} for at in (first, second) for action in TAKEN),
        *({"action": action, "addr": at, "size": size} for at in (second, first) for action in FREED),
        {"action": "alloc", "addr": taken, "size": size},
    ]
    held = [
        {
            "address": at,
            "total_size": size,
            "segment_type": "large",
            "blocks": [
                {"address": at, "size": size, "requested_size": size, "state": STATES[at == taken]},
            ],
        }
        for at in (first, second)
    ]
    assert replay_history(history_of({"segments": held, "device_traces": [entries]})).difference == ""
    entries[-1]["addr"] = taken + MIB
    assert "address" in replay_history(history_of({"segments": held, "device_traces": [entries]})).difference
