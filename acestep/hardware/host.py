"""The main memory that this process may use, on every system: the machine's, or less if its group is limited."""

import os
import sys
import warnings
import weakref
from collections import Counter
from pathlib import Path
from threading import RLock
from typing import Any, Final, Protocol

import msgspec
import psutil

from acestep.hardware.cgroups import memory_limits
from acestep.units import GIB


class HostMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory in bytes: the total for this process, what is free now, and the free swap.

    `limited_by` is the control group that allows less than the machine has; None if none does.
    """

    total_bytes: int
    available_bytes: int
    swap_bytes: int = 0
    limited_by: str | None = None

    @property
    def room_bytes(self) -> int:
        """The most that this process can take before the system ends a process."""
        return self.available_bytes + self.swap_bytes


LOCK_RESERVE_BYTES: Final = 4 * GIB
"""Bytes of main memory that are never page-locked, because locked pages cannot be swapped out."""


class LockedMemory:
    """The page-locked blocks of this process, as PyTorch has them.

    It rounds a request up to a power of two, keeps a block that is freed, and gives it again to a request of its size.
    """

    def __init__(self) -> None:
        self._blocks: Counter[int] = Counter()
        self._unused: Counter[int] = Counter()
        # A buffer can end in any thread, also while this one counts.
        self._counting = RLock()
        self.at_limit = False
        """Whether the system has refused to lock a block: only those that are kept can be used then."""

    @property
    def held_bytes(self) -> int:
        """The bytes that are locked, whether in use or kept by PyTorch."""
        with self._counting:
            return sum(size * count for size, count in self._blocks.items())

    def room_bytes(self) -> int:
        """The bytes that could be locked now besides those that are."""
        return 0 if self.at_limit else max(0, host_memory().available_bytes - LOCK_RESERVE_BYTES)

    def block_for(self, n_bytes: int) -> int | None:
        """Return the bytes of the block for a request; None if no unused one is large enough and there is no room."""
        fresh = 1 << max(0, n_bytes - 1).bit_length()
        with self._counting:
            unused = sorted(size for size, count in self._unused.items() if count and size >= fresh)
        if fresh in unused or self.room_bytes() >= fresh:
            return fresh
        return unused[0] if unused else None

    def begin(self, block: int, owner: object) -> None:
        """Count a block of these bytes as in use until `owner`, the storage that PyTorch gave, ends."""
        with self._counting:
            if self._unused[block]:
                self._unused[block] -= 1
            else:
                self._blocks[block] += 1
        weakref.finalize(owner, self._end, block).atexit = False

    def _end(self, block: int) -> None:
        with self._counting:
            self._unused[block] += 1


LOCKED: Final = LockedMemory()


class HostMachine(Protocol):
    """The source of a machine's memory figures, with the interface of `psutil`."""

    def virtual_memory(self) -> Any:
        """`total` and `available` in bytes."""
        ...

    def swap_memory(self) -> Any:
        """`free` in bytes."""
        ...


def host_memory(*, root: Path = Path("/"), machine: HostMachine = psutil, system: str = sys.platform) -> HostMemory:
    """Return the smaller of the machine's memory and the limits of this process's control groups.

    `root` is the top of the file system that shows the groups, on Linux.
    """
    total, available = _total_and_available(machine)
    # macOS creates swap files when it needs them, so all of its memory can be used.
    swap = total - available if system == "darwin" else _free_swap(machine)
    limited_by = None
    for limit in memory_limits(root) if system.startswith("linux") else ():
        if limit.limit_bytes < total:
            total, limited_by = limit.limit_bytes, limit.folder
        available = min(available, limit.free_bytes)
        swap = swap if limit.swap_bytes is None else min(swap, limit.swap_bytes)
    return HostMemory(total_bytes=total, available_bytes=available, swap_bytes=swap, limited_by=limited_by)


def lockable_bytes() -> int:
    """Return the bytes of main memory that this process holds page-locked or could lock now.

    That is the most that blocks in use at once can have: those in use, those that PyTorch keeps, and new ones.
    """
    return LOCKED.held_bytes + LOCKED.room_bytes()


def _total_and_available(machine: HostMachine) -> tuple[int, int]:
    """Return both in bytes; the system call knows them too, for containers in which /proc is not mounted."""
    try:
        found = machine.virtual_memory()
        return int(found.total), min(int(found.available), int(found.total))
    except OSError:
        if not hasattr(os, "sysconf"):
            raise
        page, pages, free = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        return pages * page, min(free, pages) * page


def _free_swap(machine: HostMachine) -> int:
    """Return the free bytes of swap; 0 if the system does not say, as in some containers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about swap rates, which are not used
            return max(0, int(machine.swap_memory().free))
    except (OSError, RuntimeError, ValueError):
        return 0
