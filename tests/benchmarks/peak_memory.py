"""The most main memory that this process takes while it computes something. Linux only."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from acestep.units import KIB

_STATUS: Final = Path("/proc/self/status")

_FORGET_PEAK: Final = "5"
"""What resets the peak when it is written to `clear_refs` (man proc_pid_clear_refs)."""


def peak_above(work: Callable[[], Any]) -> int:
    """Return the most bytes that `work` holds at once, above what is held before it, weights for example."""
    gc.collect()
    # The allocator of the C library keeps what was freed, and a second run would seem to take nothing.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")
    before = _held("VmRSS")
    work()
    return _held("VmHWM") - before


def _held(name: str) -> int:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * KIB
