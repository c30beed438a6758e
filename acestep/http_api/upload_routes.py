"""Operations on uploads: bring a recording, and delete it."""

from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from acestep.http_api.access import OurClient, OurServer
from acestep.http_api.answers import answer_with
from acestep.http_api.documents import ErrorKind, UploadDocument
from acestep.http_api.forms import FORM_TYPE, content_type, receive_form
from acestep.http_api.openapi import BINARY, form_of, refusals, schema_of, success
from acestep.http_api.refused import RefusedError

_FORM: Final = {"requestBody": {"required": True, "content": form_of(("file",), {"file": BINARY})}}

UPLOAD_ID: Final = InPath(pattern="^[0-9a-f]{32}$", description="The id of the upload.")

upload_routes = APIRouter(prefix="/v1/uploads", tags=["uploads"], default_response_class=Response)


@upload_routes.post(
    "",
    status_code=201,
    summary="Upload a recording",
    openapi_extra=_FORM,
    responses=success(201, "It is here.", schema_of(UploadDocument)) | refusals(408, 411, 413, 415, 422, 429, 507),
)
async def upload(request: Request, server: OurServer, client: OurClient) -> Response:
    """It is kept for a day, or until there is no room for others. It is read when a request uses it."""
    if content_type(request) != FORM_TYPE:
        raise RefusedError(415, ErrorKind.TYPE, f"an upload is a form with one file: send content-type {FORM_TYPE}")
    received = await receive_form(request, server.recordings, client.name, files=("file",))
    if not received.uploads:
        raise RefusedError(422, ErrorKind.INPUT, "the form needs the field file, a recording")
    return answer_with(received.uploads["file"], 201)


@upload_routes.delete("/{upload_id}", status_code=204, summary="Delete an upload", responses=refusals(404, 409, 422))
def delete_upload(upload_id: Annotated[str, UPLOAD_ID], server: OurServer, client: OurClient) -> Response:
    """Delete an upload that no request needs any more."""
    server.recordings.remove(upload_id, client.owner)
    return Response(status_code=204)
