"""The OpenAPI document of the server, whose schemas are those of our own classes."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from acestep.http_api.body import SongsAsked
from acestep.http_api.documents import ErrorDocument, RequestDocument, UploadDocument
from acestep.limits.plan_document import PlanDocument

Answers = dict[int | str, dict[str, Any]]
"""What FastAPI is told about the answers of an operation, by their status codes."""

_SCHEMAS: Final = (SongsAsked, RequestDocument, UploadDocument, ErrorDocument, PlanDocument)

_REFUSALS: Final[Mapping[int, str]] = {
    401: "There is no token, or a wrong one.",
    403: "The request names another host, or comes from another site's page.",
    404: "There is no such thing, or it belongs to another client.",
    408: "The body came too slowly.",
    409: "It is in use.",
    411: "An upload has to say its size.",
    413: "The body is too large, or there is no room for the upload.",
    415: "The body has another content type.",
    422: "A value cannot be used; the message names it.",
    429: "Too many requests wait, or too many uploads of one client come at once.",
    500: "An error that was not expected.",
    503: "The server is ending.",
    507: "The disk refused the upload.",
}


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON content of one of our documents."""
    return {"application/json": {"schema": reference_to(kind)}}


def reference_to(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the schema that stands for one of our documents."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


BINARY: Final = {"type": "string", "format": "binary"}
"""The schema of a file."""


def form_of(required: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a form with these fields, each with its schema."""
    schema = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    return {"multipart/form-data": {"schema": schema}}


def success(status: int, said: str, content: dict[str, Any]) -> Answers:
    """Return the answer of an operation that did what was asked."""
    return {status: {"description": said, "content": content}}


def refusals(*statuses: int) -> Answers:
    """Return the answers with an error document: these, and those that every operation has."""
    return {
        status: {"description": _REFUSALS[status], "content": schema_of(ErrorDocument)}
        for status in sorted({*statuses, 401, 403, 500})
    }


def describe(app: FastAPI, *, needs_token: bool) -> dict[str, Any]:
    """Return the document about the operations of `app`, with the schemas that they name."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, components = msgspec.json.schema_components(_SCHEMAS, ref_template="#/components/schemas/{name}")
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    document["components"]["schemas"] = components
    if not needs_token:
        del document["components"]["securitySchemes"]
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            del operation["security"], operation["responses"]["401"]
    return document
