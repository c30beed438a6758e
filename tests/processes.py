"""Whether processes that a test started have ended."""

import time
from collections.abc import Iterable

import psutil


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or dead and not yet waited for."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def require_end(pids: Iterable[int], seconds: float = 20) -> None:
    """Fail if a process is still at work after so many seconds."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if not has_ended(pid)]:
        assert time.monotonic() < deadline, f"processes go on: {left}"
        time.sleep(0.02)
