"""The server as an application."""

from collections.abc import Collection

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware

from acestep.http_api.access import OurClient, OurServer, Server
from acestep.http_api.answers import answer_errors, answer_with, refuse_in_form
from acestep.http_api.openapi import describe, refusals, schema_of, success
from acestep.http_api.queue import MOST_SONG_BYTES
from acestep.http_api.request_routes import request_routes
from acestep.http_api.upload_routes import upload_routes
from acestep.limits.plan_document import PlanDocument
from acestep.serving.own_address import OwnAddress
from acestep.serving.visits import MOST_SESSIONS
from acestep.units import gib
from acestep.version import version

ABOUT = f"""Makes songs with ACE-Step 1.5, one request at a time, within the limits of the server's card.

Ask for songs with `POST /v1/requests`, watch them with `GET /v1/requests/{{request_id}}` or its `events`, and fetch the
files at the `url` of each song. Requests and their songs are kept for a day after they ended, while the server
runs. The oldest are deleted earlier above {MOST_SESSIONS:,} requests, or {gib(MOST_SONG_BYTES)} of songs.
"""


def api_app(server: Server, *, names: Collection[str] = (), alone: bool = True) -> FastAPI:
    """Return the application; `names` and `alone` are those of `OwnAddress`."""
    own = Middleware(OwnAddress, names=names, alone=alone, what="server", refuse=refuse_in_form)
    app = FastAPI(
        title="ACE-Step 1.5, calibrated",
        version=version(),
        description=ABOUT,
        openapi_url=None,
        redirect_slashes=False,
        middleware=[own],
    )
    app.state.server = server
    answer_errors(app)
    app.include_router(request_routes)
    app.include_router(upload_routes)

    @app.get(
        "/v1/plan",
        tags=["plan"],
        summary="What the card may do",
        response_class=Response,
        responses=success(200, "The plan.", schema_of(PlanDocument)) | refusals(),
    )
    def plan(server: OurServer, _: OurClient) -> Response:
        """Return the document of `acestep plan --json`, with the settings of the server."""
        return answer_with(server.queue.plan())

    described = describe(app, needs_token=bool(server.tokens))

    @app.get("/openapi.json", include_in_schema=False)
    def openapi(_: OurClient) -> JSONResponse:
        return JSONResponse(described)

    return app
