"""Who may use the server: clients with one of its tokens, or everyone who reaches it if it has none."""

import hmac
from typing import Annotated

import msgspec
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from acestep.http_api.documents import ErrorKind
from acestep.http_api.hidden_places import HiddenPlaces
from acestep.http_api.queue import RequestQueue
from acestep.http_api.recordings import Recordings
from acestep.http_api.refused import RefusedError

BEARER = HTTPBearer(auto_error=False, description="A token of `acestep serve --token`.")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What the operations work with. Without `tokens`, none is required. `places` are not told to any client."""

    queue: RequestQueue
    recordings: Recordings
    places: HiddenPlaces
    tokens: tuple[str, ...] = ()


def server_of(request: Request) -> Server:
    """Return the server that a request came to."""
    server: Server = request.app.state.server
    return server


OurServer = Annotated[Server, Depends(server_of)]


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request: a token by its number, otherwise an address.

    `owner` is None without tokens: then every client that knows an id may use it.
    """

    name: str
    owner: str | None = None


def client_of(
    request: Request, server: OurServer, given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
) -> Client:
    """Return the client that sent a request; raise `RefusedError` for a token that is not the server's."""
    if not server.tokens:
        return Client(name=request.client.host if request.client else "")
    sent = b"" if given is None else given.credentials.encode()
    # All are compared, each in constant time.
    found = [number for number, token in enumerate(server.tokens) if hmac.compare_digest(token.encode(), sent)]
    if not found:
        raise RefusedError(
            401,
            ErrorKind.TOKEN,
            "this server wants a token: send the header `Authorization: Bearer TOKEN`",
            {"www-authenticate": "Bearer"},
        )
    return Client(name=f"token {found[0]}", owner=f"token {found[0]}")


OurClient = Annotated[Client, Depends(client_of)]
