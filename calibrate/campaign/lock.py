"""One process at a time: a lock beside a file, on every system; it is gone with the process that holds it."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_SUFFIX = ".lock"
"""What the lock's name has more than that of its file."""


class Lock:
    """The lock of `path`, taken at once.

    Raises `BlockingIOError` where another holds it, `OSError` where its file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + LOCK_SUFFIX)
        self._lock = FileLock(self._path, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(f"{self._path} is held by another process") from None

    def release(self) -> None:
        """Let another have it, and remove its file."""
        # Before it is let go, or the file of the next holder would be removed. Windows removes it afterwards.
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()
