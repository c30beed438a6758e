"""Operations on uploads: bring a recording, and delete it."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from acestep.http_api.access import OurClient, OurServer
from acestep.http_api.answers import answer_with
from acestep.http_api.documents import ErrorKind, UploadDocument
from acestep.http_api.openapi import refusals, schema_of, success
from acestep.http_api.refused import RefusedError
from acestep.serving.bounds import LARGEST_UPLOAD_BYTES
from acestep.units import gib

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            }
        },
    }
}

UPLOAD_ID: Final = InPath(pattern="^[0-9a-f]{32}$", description="The id of the upload.")

_NO_FILE = "an upload is a form with one file: send content-type multipart/form-data with the field `file`"


upload_routes = APIRouter(prefix="/v1/uploads", tags=["uploads"], default_response_class=Response)


@upload_routes.post(
    "",
    status_code=201,
    summary="Upload a recording",
    openapi_extra=_FORM,
    responses=success(201, "It is here.", schema_of(UploadDocument)) | refusals(411, 413, 415, 422, 507),
)
async def upload(request: Request, server: OurServer, client: OurClient) -> Response:
    """It is kept for a day, or until there is no room for others. It is read when a request uses it."""
    size, recordings = _said_size(request), server.recordings
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RefusedError(415, ErrorKind.TYPE, _NO_FILE)
    try:
        with recordings.arriving(size) as arrived:
            async with request.form(max_files=1, max_fields=0) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise RefusedError(422, ErrorKind.INPUT, _NO_FILE)
                kept = await run_in_threadpool(recordings.keep, file.file, file.filename or "", client.name)
            arrived.append(recordings.path_of(kept.id, None))
    except HTTPException as error:
        raise RefusedError(422, ErrorKind.INPUT, f"{_NO_FILE} ({error.detail})") from None
    except OSError as error:
        raise RefusedError(
            507, ErrorKind.SIZE, f"the server's disk refused the upload ({error.strerror}); is it full?"
        ) from None
    return answer_with(kept, 201)


@upload_routes.delete("/{upload_id}", status_code=204, summary="Delete an upload", responses=refusals(404, 409, 422))
def delete_upload(upload_id: Annotated[str, UPLOAD_ID], server: OurServer, client: OurClient) -> Response:
    """Delete an upload that no request needs any more."""
    server.recordings.remove(upload_id, client.owner)
    return Response(status_code=204)


def _said_size(request: Request) -> int:
    said = request.headers.get("content-length", "")
    if not (said.isascii() and said.isdigit()):
        raise RefusedError(411, ErrorKind.SIZE, "an upload has to say its size: send the header content-length")
    if len(said) > len(str(LARGEST_UPLOAD_BYTES)) or int(said) > LARGEST_UPLOAD_BYTES:
        most = gib(LARGEST_UPLOAD_BYTES)
        raise RefusedError(413, ErrorKind.SIZE, f"an upload may have {most}; bring a shorter recording, or FLAC or MP3")
    return int(said)
