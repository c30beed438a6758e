"""The shape of what stands between the server and the page, and a refusal in it."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

AsgiScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

Refuse = Callable[[Send, int, str], Awaitable[None]]
"""Answers a request with a status and a sentence."""


def header(scope: AsgiScope, name: str) -> str:
    """Return a header of a request, empty if it has none."""
    return next(
        (value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == name.encode()), ""
    )


async def refuse(send: Send, status: int, sentence: str) -> None:
    """Answer a request with a status and a sentence."""
    body = json.dumps({"error": sentence}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
