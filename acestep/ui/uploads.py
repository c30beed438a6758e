"""Uploaded files: bounded in total, and deleted when no visit needs them any more."""

import json
import threading
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Final

from acestep.ui.asgi import App, AsgiScope, Message, Receive, Send, header, refuse
from acestep.units import GIB, gib

MOST_UPLOADED_BYTES: Final = 2 * GIB
"""Uploaded files that are kept, of all visits together."""

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
        """Make room for a file of `size` bytes, by deleting the oldest that no visit needs; return whether there is."""
        with self._lock:
            for path in [path for path in self._size if not path.exists()]:
                self._forget(path)
            for path in [path for path in self._size if not self._needed_by.get(path)]:
                if self._held + size <= self.most_bytes:
                    break
                self._delete(path)
            if self._held + size > self.most_bytes:
                return False
            self._arriving += size
            return True

    def arrived(self, paths: Collection[Path], expected: int) -> None:
        """Note the files of an upload that `expect` made room for; none if it failed."""
        with self._lock:
            self._arriving -= expected
            for path in paths:
                if path.is_file():
                    self._size[path] = path.stat().st_size

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

    @property
    def _held(self) -> int:
        return sum(self._size.values()) + self._arriving

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


class BoundedUploads:
    """Refuses uploads for which there is no room, and those that do not say how large they are."""

    def __init__(self, app: App, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on to the page, or refuse an upload with status 411 or 413."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self._app(scope, receive, send)
            return
        length = header(scope, "content-length")
        if not length.isascii() or not length.isdigit() or len(length) > len(str(self._uploads.most_bytes)):
            await refuse(send, 413 if length.isdigit() else 411, "An upload has to say its size, and it is limited.")
            return
        if not self._uploads.expect(size := int(length)):
            most = gib(self._uploads.most_bytes)
            await refuse(send, 413, f"The files that visitors uploaded fill the {most} for them. Try again later.")
            return
        status, answer = 0, bytearray()

        async def seen(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            answer.extend(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._uploads.arrived(_paths(bytes(answer)) if status == 200 else (), size)


def _paths(answer: bytes) -> tuple[Path, ...]:
    """The files in the page's answer to an upload."""
    try:
        named = json.loads(answer)
    except ValueError:
        return ()
    return tuple(Path(name) for name in named if isinstance(name, str)) if isinstance(named, list) else ()
