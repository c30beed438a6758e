"""The most main memory that this process takes while it computes something. Linux only."""

import ctypes
import gc
import os
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


def peak_alone(work: Callable[[], Any]) -> int:
    """Return what `peak_above` returns of a copy of this process, so that no other work leaves memory to reuse."""
    gc.collect()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(peak_above(work)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="ascii") as said:
        answer = said.read()
    os.waitpid(child, 0)
    return int(answer)


def _held(name: str) -> int:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * KIB
