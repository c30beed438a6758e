"""Whether processes that a test started have ended, and what a process imports."""

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

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


def imported_by(*arguments: str) -> set[str]:
    """The modules that a Python process with these arguments imports; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
