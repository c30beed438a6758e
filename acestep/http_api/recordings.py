"""The recordings that clients upload."""

import re
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from acestep.http_api.documents import ErrorKind, UploadDocument
from acestep.http_api.refused import RefusedError, unknown
from acestep.serving.bounds import DAY_S
from acestep.serving.uploads import Uploads
from acestep.units import gib

LONGEST_NAME: Final = 60
"""Characters of a file's name that are kept: a file system takes 255 bytes, and a character has at most four."""

MOST_UPLOADS: Final = 1_000
"""Uploads that are kept; the oldest that no request needs are deleted first."""

MOST_ARRIVING: Final = 2
"""Uploads of one client that arrive at the same time: each keeps room free that others cannot have."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    path: Path
    client: str
    since: float


class Recordings:
    """Uploaded files below `folder`, by ids that cannot be guessed; `uploads` bounds their size in total."""

    def __init__(self, folder: Path, uploads: Uploads, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self.uploads = uploads
        self._clock = clock
        self._known: dict[str, _Kept] = {}
        self._arriving: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def arriving(self, size: int, client: str) -> Iterator[list[Path]]:
        """Keep room for an upload of so many bytes; the block puts its file into the list, and nothing if it failed.

        Raises `RefusedError` if there is no room, or if others of this client are arriving.
        """
        with self._lock:
            if self._arriving[client] >= MOST_ARRIVING:
                raise RefusedError(
                    429, ErrorKind.BUSY, f"{MOST_ARRIVING} of your uploads are on their way; wait until one is here"
                )
            self._arriving[client] += 1
        arrived: list[Path] = []
        try:
            self._require_room(size)
            try:
                yield arrived
            finally:
                self.uploads.arrived(arrived, size)
        finally:
            with self._lock:
                self._arriving[client] -= 1
                if not self._arriving[client]:
                    del self._arriving[client]

    def _require_room(self, size: int) -> None:
        if not self.uploads.expect(size):
            most = gib(self.uploads.most_bytes)
            raise RefusedError(
                413, ErrorKind.SIZE, f"the uploads of all clients fill the {most} for them; try again later"
            )

    def keep(self, file: BinaryIO, name: str, client: str) -> UploadDocument:
        """Copy a file and return its document; `name` is what the client calls it. Raises `OSError` from the disk."""
        upload = secrets.token_hex(16)
        path = self._folder / upload / plain_name(name)
        try:
            path.parent.mkdir()
            with path.open("wb") as kept:
                shutil.copyfileobj(file, kept)
        except OSError:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        with self._lock:
            self._known[upload] = _Kept(path=path, client=client, since=self._clock())
        if len(self._known) > MOST_UPLOADS:
            self._forget_deleted()
        for other, known in list(self._known.items()):
            if len(self._known) <= MOST_UPLOADS:
                break
            if self.uploads.drop(known.path):
                self._forget(other, known.path)
        return UploadDocument(id=upload, name=path.name, size_bytes=path.stat().st_size)

    def path_of(self, upload: str, client: str | None) -> Path:
        """Return the file of an upload, if it is this client's (None: any); raise `RefusedError` if there is none."""
        kept = self._known.get(upload)
        if kept is None or (client is not None and kept.client != client) or not kept.path.exists():
            raise unknown("upload")
        return kept.path

    def remove(self, upload: str, client: str | None) -> None:
        """Delete an upload; raise `RefusedError` if there is none, or if a request that has not ended needs it."""
        path = self.path_of(upload, client)
        if not self.uploads.drop(path):
            raise RefusedError(
                409, ErrorKind.BUSY, "a request that has not ended needs this upload; cancel it, or delete this later"
            )
        self._forget(upload, path)

    def discard(self, uploads: Iterable[str]) -> None:
        """Delete recordings that came with a request which was refused or has ended."""
        for upload in uploads:
            kept = self._known.get(upload)
            if kept is not None and self.uploads.drop(kept.path):
                self._forget(upload, kept.path)

    def expire(self) -> None:
        """Delete what was uploaded more than a day ago, and forget what was deleted to make room."""
        for kept in list(self._known.values()):
            if self._clock() - kept.since > DAY_S:
                self.uploads.drop(kept.path)
        self._forget_deleted()

    def _forget_deleted(self) -> None:
        for upload, kept in list(self._known.items()):
            if not kept.path.exists():
                self._forget(upload, kept.path)

    def _forget(self, upload: str, path: Path) -> None:
        with self._lock:
            self._known.pop(upload, None)
        shutil.rmtree(path.parent, ignore_errors=True)


def plain_name(name: str) -> str:
    """Return a file name without anything that means something to a file system; sentences about the file show it."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[-LONGEST_NAME:].strip(".-") or "recording"
