"""Answers over HTTP: our documents as JSON, and one form for everything that is refused."""

from collections.abc import Mapping

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from acestep.errors import AceStepError
from acestep.http_api.access import server_of
from acestep.http_api.documents import UNEXPECTED, ErrorAnswer, ErrorDocument, ErrorKind, problem_from
from acestep.http_api.refused import RefusedError
from acestep.serving.asgi import Send
from acestep.serving.failures import failure_of

_JSON = "application/json"

_KINDS = {404: ErrorKind.UNKNOWN, 405: ErrorKind.METHOD}


def answer_with(document: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as an answer."""
    return Response(msgspec.json.encode(document), status, headers, _JSON)


async def refuse_in_form(send: Send, status: int, sentence: str) -> None:
    """Answer a request whose address is refused."""
    body = msgspec.json.encode(ErrorDocument(error=ErrorAnswer(kind=ErrorKind.ADDRESS, message=sentence)))
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", _JSON.encode())]})
    await send({"type": "http.response.body", "body": body})


def answer_errors(app: FastAPI) -> None:
    """Let every error that leaves an operation become an answer in the one form."""

    @app.exception_handler(RefusedError)
    def _(_: Request, error: RefusedError) -> Response:
        return _refusal(error.problem, error.status, error.headers)

    @app.exception_handler(AceStepError)
    def _(request: Request, error: AceStepError) -> Response:
        return _refusal(problem_from(failure_of(error), server_of(request).places), 422)

    @app.exception_handler(RequestValidationError)
    def _(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _refusal(ErrorAnswer(kind=ErrorKind.INPUT, message=f"{first['loc'][-1]}: {first['msg']}"), 422)

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> Response:
        kind = _KINDS.get(error.status_code, ErrorKind.INPUT)
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _refusal(ErrorAnswer(kind=kind, message=message), error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    def _(_: Request, __: ClientDisconnect) -> Response:
        # It reaches no client; without it the log has a traceback for each.
        return _refusal(ErrorAnswer(kind=ErrorKind.INPUT, message="the request ended before all of it was here"), 422)

    @app.exception_handler(Exception)
    def _(_: Request, __: Exception) -> Response:
        return _refusal(UNEXPECTED, 500)


def _refusal(problem: ErrorAnswer, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return answer_with(ErrorDocument(error=problem), status, headers)
