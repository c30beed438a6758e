"""A body that has to keep coming, so that no client can hold a place by sending nothing."""

import asyncio
from typing import Any, Final

from fastapi import Request

from acestep.http_api.documents import ErrorKind
from acestep.http_api.refused import RefusedError
from acestep.units import KIB

PAUSE_S: Final = 30
"""Seconds that a client may wait, all its pauses together."""

SLOWEST_BYTES_PER_S: Final = 32 * KIB
"""The rate, with pauses of `PAUSE_S`, below which a body is refused."""


def steady(request: Request) -> Request:
    """Return a request whose body raises `RefusedError` when it comes too slowly."""
    loop = asyncio.get_running_loop()
    began, received = loop.time(), 0

    async def receive() -> Any:
        nonlocal received
        try:
            async with asyncio.timeout_at(began + PAUSE_S + received / SLOWEST_BYTES_PER_S):
                message = await request.receive()
        except TimeoutError:
            raise RefusedError(
                408, ErrorKind.SLOW, "the body came too slowly; send it again over a faster connection"
            ) from None
        received += len(message.get("body", b""))
        return message

    return Request(request.scope, receive)
