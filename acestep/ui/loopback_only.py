"""Who may talk to a page that is meant for this machine alone: not another site, in whatever browser it runs here."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

AsgiScope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[AsgiScope, Callable[[], Awaitable[Any]], Send], Awaitable[None]]

REFUSAL = "This page is for this machine alone. Open it by the address it was started with."


class LoopbackOnly:
    """Turns away requests under another name than this machine's own, and those that another site's page sends.

    A name of somebody's own can be made to lead here; what then talks to the page is a stranger's script.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Answer for the page, or let it answer."""
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        if scope["type"] != "http" or welcome(host, origin):
            await self._app(scope, receive, send)
            return
        body = json.dumps({"error": REFUSAL}).encode()
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


def welcome(host: str, origin: str) -> bool:
    """Whether a request names this machine, and comes from its own page or from no page at all."""
    if not is_loopback(_name(f"//{host}")):
        return False
    return not origin or origin == f"http://{host}"


def is_loopback(name: str) -> bool:
    """Whether a host is reached from this machine only."""
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
