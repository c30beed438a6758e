"""Refuses uploads to the page that are too large, or for which there is no room."""

import json
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from acestep.serving.asgi import App, AsgiScope, Message, Receive, Send, header, refuse
from acestep.serving.uploads import Uploads
from acestep.units import gib

MOST_OF_AN_ADDRESS: Final = 4
"""Uploads of one address that arrive at the same time: each keeps room free that others cannot have.

Not of this machine: through a public address or a proxy here, all visitors have that one.
"""


class BoundedUploads:
    """Refuses uploads for which there is no room, too many at once, and those that do not say how large they are."""

    def __init__(self, app: App, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads
        self._arriving: Counter[str] = Counter()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on to the page, or refuse an upload with status 411, 413 or 429."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self._app(scope, receive, send)
            return
        length = header(scope, "content-length")
        if not length.isascii() or not length.isdigit() or len(length) > len(str(self._uploads.most_bytes)):
            await refuse(send, 413 if length.isdigit() else 411, "An upload has to say its size, and it is limited.")
            return
        visitor = str((scope.get("client") or ("",))[0])
        if self._arriving[visitor] >= MOST_OF_AN_ADDRESS and not _is_this_machine(visitor):
            await refuse(send, 429, "Several of your files are on their way; wait until one is here.")
            return
        if not self._uploads.expect(size := int(length)):
            most = gib(self._uploads.most_bytes)
            await refuse(send, 413, f"The files that visitors uploaded fill the {most} for them. Try again later.")
            return
        self._arriving[visitor] += 1
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
            self._arriving -= Counter({visitor: 1})


def _is_this_machine(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _paths(answer: bytes) -> tuple[Path, ...]:
    """The files in the page's answer to an upload."""
    try:
        named = json.loads(answer)
    except ValueError:
        return ()
    return tuple(Path(name) for name in named if isinstance(name, str)) if isinstance(named, list) else ()
