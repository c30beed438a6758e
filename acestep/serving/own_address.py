"""Refuses requests under a foreign host name, and those from another site's page, in any browser."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from acestep.serving.asgi import App, AsgiScope, Receive, Refuse, Send, header, refuse


class OwnAddress:
    """Refuses requests under another host name than the page's own, and those from another site's page.

    A third party can let its own host name resolve to this machine (DNS rebinding); its page's script could then use
    this page, in the browser of a visitor who has logged in. `names` are the page's host names besides loopback; others
    may be added later. A page that is not `alone` on this machine also answers to every address that is a number. A
    refusal says `what` was asked, and is sent by `refuse`.
    """

    def __init__(
        self, app: App, names: Collection[str] = (), *, alone: bool = True, what: str = "page", refuse: Refuse = refuse
    ) -> None:
        self._app = app
        self._names = names
        self._alone = alone
        self._refuse = refuse
        reach = "is for this machine alone" if alone else "answers to its own address alone"
        self._refusal = f"This {what} {reach}. Open it by the address it was started with."

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on to the page, or refuse it with status 403."""
        host, origin = header(scope, "host"), header(scope, "origin")
        if scope["type"] != "http" or is_allowed(host, origin, self._names, alone=self._alone):
            await self._app(scope, receive, send)
        else:
            await self._refuse(send, 403, self._refusal)


def is_allowed(host: str, origin: str, names: Collection[str] = (), *, alone: bool = True) -> bool:
    """Return whether a request names this page, and comes from its own page or from no page at all."""
    name = _name(f"//{host}")
    if not (is_loopback(name) or name in names or (not alone and _is_number(name))):
        return False
    # A public address ends the encryption, and may pass requests on under the name of this machine.
    return (
        not origin
        or origin == f"http://{host}"
        or (not alone and (origin == f"https://{host}" or _name(origin) in names))
    )


def is_loopback(name: str) -> bool:
    """Return whether a host is reached from this machine only."""
    return name == "localhost" or (_is_number(name) and ip_address(name.strip("[]")).is_loopback)


def _is_number(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
