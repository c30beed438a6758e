"""A process and all its descendants, found by a mark in their environment, even in other sessions."""

import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

FAMILY_MARK = "ACESTEP_PROBE"
"""The environment variable whose value all members of a family share; it survives new sessions and dead parents."""

_GRACE_S = 5.0

_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def members(mark: str) -> set[int]:
    """Return the ids of the living processes that carry a mark; zombies count as dead."""
    return {process.pid for process in _carrying(mark)}


def kill_all(mark: str, spared: int = 0) -> set[int]:
    """Kill a family except the process `spared`, and wait until it is gone.

    Return the ids that could not be killed in time. A process that forks while it is being killed is found in the next
    round.
    """
    deadline = time.monotonic() + _GRACE_S
    while alive := [process for process in _carrying(mark) if process.pid != spared]:
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        if time.monotonic() > deadline:
            return {process.pid for process in alive}
        time.sleep(0.005)
    return set()


def _carrying(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            if process.environ().get(FAMILY_MARK) == mark and process.status() not in _ENDED:
                yield process
