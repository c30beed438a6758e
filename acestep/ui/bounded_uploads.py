"""Refuses uploads to the page that are too large, or for which there is no room."""

import json
from pathlib import Path

from acestep.serving.asgi import App, AsgiScope, Message, Receive, Send, header, refuse
from acestep.serving.uploads import Uploads
from acestep.units import gib


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
