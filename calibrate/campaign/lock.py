"""A lock file for one process at a time, on every system; it is released when its process ends."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_SUFFIX = ".lock"
"""The suffix of the lock file's name."""


class Lock:
    """The lock of `path`, acquired at once.

    Raises `BlockingIOError` if another process holds it, `OSError` if its file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + LOCK_SUFFIX)
        self._lock = FileLock(self._path, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(f"{self._path} is held by another process") from None

    def release(self) -> None:
        """Release the lock, and remove its file."""
        # Removed before the release, otherwise the next holder's file would be removed. Windows removes it afterwards.
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()
