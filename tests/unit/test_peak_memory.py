"""The meter of the benchmarks: the most memory at once, without what is held before, and without what is kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from acestep.units import MIB
from tests.command_lines import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps the peak that is read")

CODE = """
import sys
import numpy as np
from tests.benchmarks.peak_memory import peak_above

held = np.ones(int(sys.argv[1]), np.uint8)

def work():
    for _ in range(3):
        np.ones(int(sys.argv[2]), np.uint8)

print(*[peak_above(work) for _ in range(2)])
"""


@pytest.mark.parametrize("held_mib", [0, 64])
def test_the_peak_is_that_of_the_work_alone_and_the_same_again(held_mib: int) -> None:
    # In a process of its own, as a benchmark is: other threads and their memory would be counted too.
    command = [sys.executable, "-c", CODE, str(held_mib * MIB), str(96 * MIB)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    # The system counts in batches of pages.
    assert all(95 * MIB < int(peak) < 104 * MIB for peak in done.stdout.split()), done.stdout
