"""A process and all that descend from it, found again wherever they went: they carry a mark in their environment."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

MARK = "ACESTEP_PROBE"
"""The environment variable whose value all members of a family share: it survives new sessions and lost parents."""

_PROC = Path("/proc")
_GRACE_S = 5.0


def members(mark: str) -> set[int]:
    """The ids of the living processes that carry a mark; zombies are dead."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # it ended, or it is somebody else's
            carries = wanted in (entry / "environ").read_bytes().split(b"\0")
            if carries and (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in "ZX":
                found.add(int(entry.name))
    return found


def kill_all(mark: str, spared: int = 0) -> set[int]:
    """Kill a family, but for the process `spared`, and wait until it is gone; returns who could not be killed in time.

    One that forks while it is being killed is met again in the next round.
    """
    deadline = time.monotonic() + _GRACE_S
    while alive := members(mark) - {spared}:
        for pid in alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return alive
        time.sleep(0.005)
    return set()
