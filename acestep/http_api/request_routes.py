"""Operations on requests: ask for songs, watch, cancel, delete, and fetch the files."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from acestep.audio.write import MEDIA_TYPES
from acestep.errors import AceStepError, UsageError
from acestep.http_api.access import Client, OurClient, OurServer, Server
from acestep.http_api.answers import answer_with
from acestep.http_api.body import UPLOADED, SongsAsked, read_body, uploads_in
from acestep.http_api.documents import ErrorKind, RequestDocument, RequestState
from acestep.http_api.forms import (
    FORM_TYPE,
    MOST_BODY_BYTES,
    ReceivedForm,
    content_type,
    receive_form,
)
from acestep.http_api.openapi import BINARY, form_of, reference_to, refusals, schema_of, success
from acestep.http_api.progress import document_of
from acestep.http_api.queued_request import QueuedRequest
from acestep.http_api.refused import RefusedError, unknown
from acestep.http_api.steady import steady
from acestep.request import MAX_BATCH

WATCH_S: Final = 0.2
"""Seconds between two looks at the progress of a request."""

REQUEST_ID: Final = InPath(pattern="^[0-9a-f]{32}$", description="The id of the request.")

NUMBER: Final = InPath(ge=1, le=MAX_BATCH, description="1 for the first song.")

OF_ONE: Final = refusals(404, 422)

DOCUMENT: Final = schema_of(RequestDocument)

_FIELDS: Final = {"request": reference_to(SongsAsked), **dict.fromkeys(UPLOADED, BINARY)}

_BODY: Final = {"requestBody": {"required": True, "content": schema_of(SongsAsked) | form_of(("request",), _FIELDS)}}


def _audio() -> dict[str, Any]:
    return {media: {"schema": BINARY} for media in MEDIA_TYPES.values()}


request_routes = APIRouter(prefix="/v1/requests", tags=["requests"], default_response_class=Response)


def found(request_id: Annotated[str, REQUEST_ID], server: OurServer, client: OurClient) -> QueuedRequest:
    """Return the request that an address names."""
    return server.queue.of(request_id, client.owner)


OurRequest = Annotated[QueuedRequest, Depends(found)]


@request_routes.post(
    "",
    status_code=202,
    summary="Ask for songs",
    openapi_extra=_BODY,
    responses=success(202, "It waits for its turn.", DOCUMENT) | refusals(408, 411, 413, 415, 422, 429, 503, 507),
)
async def ask(request: Request, server: OurServer, client: OurClient) -> Response:
    """The body is JSON, or a form with the JSON as `request` and recordings as files, deleted when it has ended."""
    if content_type(request) == FORM_TYPE:
        given = await receive_form(request, server.recordings, client.name, files=UPLOADED, text="request")
    elif content_type(request) == "application/json":
        given = ReceivedForm(uploads={}, text=await _body(request))
    else:
        raise RefusedError(
            415, ErrorKind.TYPE, f"a request for songs is JSON: send content-type application/json, or {FORM_TYPE}"
        )
    try:
        queued = _add(server, client, given)
    except (AceStepError, RefusedError):
        server.recordings.discard(upload.id for upload in given.uploads.values())
        raise
    return answer_with(_about(server, queued), 202, {"location": f"/v1/requests/{queued.id}"})


@request_routes.get(
    "/{request_id}", summary="How far it has come", responses=success(200, "Its progress.", DOCUMENT) | OF_ONE
)
def state(server: OurServer, queued: OurRequest) -> Response:
    """Return the document of a request."""
    return answer_with(_about(server, queued))


@request_routes.get(
    "/{request_id}/events",
    summary="Its progress as server-sent events",
    response_class=EventSourceResponse,
    responses=OF_ONE,
)
async def events(server: OurServer, queued: OurRequest) -> AsyncIterator[ServerSentEvent]:
    """Each event has the state as its name and the document as its data. The last is final, unless it is deleted."""
    said: RequestDocument | None = None
    while True:
        now = _about(server, queued)
        if now != said:
            said = now
            yield ServerSentEvent(event=now.state, raw_data=msgspec.json.encode(now).decode())
        if now.state.is_final or queued.is_removed or server.queue.is_ending:
            return
        await asyncio.sleep(WATCH_S)


@request_routes.post(
    "/{request_id}/cancel",
    summary="Stop it at its next step",
    responses=success(200, "Its progress.", DOCUMENT) | OF_ONE,
)
def cancel(server: OurServer, queued: OurRequest) -> Response:
    """Stop a request; one that has ended stays as it is."""
    server.queue.cancel(queued)
    return answer_with(_about(server, queued))


@request_routes.delete("/{request_id}", status_code=204, summary="Delete it and its songs", responses=OF_ONE)
def delete_request(server: OurServer, queued: OurRequest) -> Response:
    """Stop a request if it has not ended, and delete it and its songs."""
    server.queue.remove(queued)
    return Response(status_code=204)


@request_routes.get(
    "/{request_id}/songs/{number}",
    summary="The file of a song",
    responses=success(200, "The file.", _audio()) | OF_ONE,
)
def song(server: OurServer, queued: OurRequest, number: Annotated[int, NUMBER], request: Request) -> Response:
    """Return the file of a song of a finished request."""
    files = queued.files if _about(server, queued).state is RequestState.FINISHED else ()
    if number > len(files) or not files[number - 1].is_file():
        raise unknown("song")
    path = files[number - 1]
    # Only whole files: the library's answers to a wrong range are not in our form.
    request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
    return FileResponse(
        path, media_type=MEDIA_TYPES[path.suffix], filename=path.name, headers={"accept-ranges": "none"}
    )


def _about(server: Server, queued: QueuedRequest) -> RequestDocument:
    return document_of(queued, server.queue.ahead(queued), server.places)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in steady(request).stream():
        body += piece
        if len(body) > MOST_BODY_BYTES:
            raise RefusedError(413, ErrorKind.SIZE, f"the body may have {MOST_BODY_BYTES:,} bytes")
    return bytes(body)


def _add(server: Server, client: Client, given: ReceivedForm) -> QueuedRequest:
    asked = read_body(given.text, {name: kept.id for name, kept in given.uploads.items()})
    files = {name: _file(server, name, upload, client) for name, upload in uploads_in(asked).items()}
    return server.queue.add(asked, client.name, files, own=[upload.id for upload in given.uploads.values()])


def _file(server: Server, name: str, upload: str, client: Client) -> Path:
    try:
        return server.recordings.path_of(upload, client.owner)
    except RefusedError:
        raise UsageError(
            f"{name} names no upload of yours; it may have been deleted to make room, so upload it again"
        ) from None
