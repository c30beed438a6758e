"""Restricts a page to this machine: requests from another site's page are refused, in any browser here."""

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
    """Refuses requests under another host name than this machine's own, and those from another site's page.

    A third party can let its own host name resolve to this machine (DNS rebinding); its page's script could then use
    this page.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Pass a request on to the page, or refuse it with status 403."""
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        if scope["type"] != "http" or is_allowed(host, origin):
            await self._app(scope, receive, send)
            return
        body = json.dumps({"error": REFUSAL}).encode()
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


def is_allowed(host: str, origin: str) -> bool:
    """Return whether a request names this machine, and comes from its own page or from no page at all."""
    if not is_loopback(_name(f"//{host}")):
        return False
    return not origin or origin == f"http://{host}"


def is_loopback(name: str) -> bool:
    """Return whether a host is reached from this machine only."""
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
