"""The meter of the benchmarks: the most memory at once, without what is held before, and without what is kept."""

from pathlib import Path

import pytest
import torch

from acestep.units import MIB
from tests.benchmarks.peak_memory import peak_above

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps the peak that is read")


@pytest.mark.parametrize("held_mib", [0, 64])
def test_the_peak_is_that_of_the_work_alone_and_the_same_again(held_mib: int) -> None:
    held = torch.ones(held_mib * MIB, dtype=torch.uint8)

    def work() -> None:
        for _ in range(3):
            torch.ones(96 * MIB, dtype=torch.uint8)

    peaks = [peak_above(work) for _ in range(2)]
    # The system counts in batches of pages.
    assert all(95 * MIB < peak < 104 * MIB for peak in peaks), (peaks, held.shape)
