"""Uploaded files: bounded in total, and deleted when no visit needs them any more."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

from acestep.audio.read import read_clip
from acestep.clip import Clip
from acestep.errors import InvalidInputError
from acestep.units import GIB

_Found = TypeVar("_Found")

MOST_UPLOADED_BYTES: Final = 2 * GIB
"""Uploaded files that are kept, of all visits together. As much again may be arriving."""

MOST_FILES: Final = 8
"""Uploaded files of one visit that are kept; a run reads two at most."""


class Uploads:
    """The uploaded files, and the visits that need each. Equal files have one path, so several visits may need it."""

    def __init__(self, most_bytes: int = MOST_UPLOADED_BYTES) -> None:
        self.most_bytes = most_bytes
        self._size: OrderedDict[Path, int] = OrderedDict()
        self._needed_by: dict[Path, set[str]] = {}
        self._of: dict[str, list[Path]] = {}
        self._arriving = 0
        self._lock = threading.Lock()

    def expect(self, size: int) -> bool:
        """Return whether there is room for a file of `size` bytes beside those that visits need, and keep it free.

        Nothing is deleted: the file may never arrive.
        """
        with self._lock:
            for path in [path for path in self._size if not path.exists()]:
                self._forget(path)
            needed = sum(known for path, known in self._size.items() if self._needed_by.get(path))
            if needed + self._arriving + size > self.most_bytes:
                return False
            self._arriving += size
            return True

    def arrived(self, paths: Collection[Path], expected: int) -> None:
        """Note the files of an upload that `expect` kept room for, none if it failed.

        The oldest files that no visit needs are deleted where all together are too large.
        """
        with self._lock:
            self._arriving -= expected
            for path in paths:
                if path.is_file():
                    self._size[path] = path.stat().st_size
            for path in [path for path in self._size if not self._needed_by.get(path)]:
                if sum(self._size.values()) <= self.most_bytes:
                    break
                self._delete(path)

    def need(self, visit: str, paths: Collection[Path]) -> None:
        """Note that a visit needs files; those that it needed long before are deleted if no other does."""
        with self._lock:
            mine = self._of.setdefault(visit, [])
            for path in paths:
                if path in self._size:
                    mine[:] = [other for other in mine if other != path] + [path]
                    self._needed_by.setdefault(path, set()).add(visit)
            for path in mine[:-MOST_FILES]:
                self._release(visit, path)
            del mine[:-MOST_FILES]

    def leave(self, visit: str) -> None:
        """Delete the files that only this visit needs."""
        with self._lock:
            for path in self._of.pop(visit, []):
                self._release(visit, path)

    def release(self, visit: str) -> None:
        """Note that a visit needs its files no longer; they stay until there is no room for others."""
        with self._lock:
            for path in self._of.pop(visit, []):
                self._needed_by.get(path, set()).discard(visit)

    def drop(self, path: Path) -> bool:
        """Delete a file; return False, and leave it, if a visit needs it."""
        with self._lock:
            if self._needed_by.get(path):
                return False
            self._delete(path)
            return True

    def _release(self, visit: str, path: Path) -> None:
        needed_by = self._needed_by.get(path, set())
        needed_by.discard(visit)
        if not needed_by:
            self._delete(path)

    def _delete(self, path: Path) -> None:
        self._forget(path)
        path.unlink(missing_ok=True)

    def _forget(self, path: Path) -> None:
        self._size.pop(path, None)
        self._needed_by.pop(path, None)


def uploaded_clip(path: str) -> Clip:
    """Return the clip in an uploaded file; raises as `of_upload` does."""
    return of_upload(path, read_clip)


def of_upload(path: str, read: Callable[[Path], _Found]) -> _Found:
    """Return what `read` finds in an uploaded file; `InvalidInputError` gives the name that its owner uses."""
    try:
        return read(Path(path))
    except InvalidInputError as error:
        # The upload folder's path must not be shown.
        problem = error.problem.replace(path, Path(path).name)
    raise InvalidInputError(Path(path).name, problem)
