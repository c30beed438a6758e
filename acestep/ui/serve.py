"""Serves the page on a port of this machine, until it is interrupted."""

import gc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from acestep.adapters.choice import Adapter
from acestep.errors import RunFailedError
from acestep.importing import without_collection
from acestep.limits.plan import Overrides
from acestep.proxies import LOOPBACK, reach_directly, require_usable, without_proxies
from acestep.serving.bounds import DAY_S, LARGEST_UPLOAD_BYTES, MOST_WAITING
from acestep.serving.port import names_of_this_machine, open_port, port_of

MOST_STATES = 200
"""Sessions of which gradio keeps the state of the page, 0.2 MB each; nothing that this page needs is in it."""


def serve_page(
    *,
    model: str,
    adapters: Sequence[Adapter],
    overrides: Overrides,
    out: Path,
    language: str | None,
    server_name: str,
    port: int,
    auth: Sequence[tuple[str, str]],
    share: bool,
    alone: bool,
    hosts: Sequence[str],
    init_service: bool,
    announce: Callable[[str], None],
    notify: Callable[[str], None],
) -> None:
    """Serve the page until `KeyboardInterrupt`; `announce` is called with its address. No `language`: the browser's.

    `alone` restricts it to this machine; otherwise it answers to numeric addresses, this machine's name and `hosts`.
    Requests from another site's page are refused in any case.
    """
    with open_port(server_name, port, "page") as free:
        port = port_of(free)
    with ExitStack() as end:
        # At last: closing collects garbage, which takes long while the libraries' objects are looked at too.
        end.callback(gc.unfreeze)
        # gradio reads these when it is imported.
        cache = end.enter_context(TemporaryDirectory(prefix="acestep-ui-"))
        os.environ |= {
            "GRADIO_TEMP_DIR": cache,
            "GRADIO_EXAMPLES_CACHE": cache,
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ALLOWED_PATHS", "GRADIO_SHARE"):
            os.environ.pop(name, None)

        # gradio asks the page whether it is up, and no proxy can answer that. A page of this machine needs no network,
        # so an unusable proxy does not matter to it.
        if share:
            require_usable(os.environ)
            reach_directly((*LOOPBACK, server_name.strip("[]")), os.environ)
        else:
            end.enter_context(without_proxies())

        with without_collection():
            from starlette.middleware import Middleware

            from acestep.serving.own_address import OwnAddress
            from acestep.ui.bounded_uploads import BoundedUploads
            from acestep.ui.slow_login import SlowLogin
            from acestep.ui.studio import Studio
            from acestep.ui.visitor_language import VisitorLanguage

            studio = Studio(model, overrides, out.absolute(), adapters, _look_at_no_more)
            end.callback(studio.close)
            if init_service:
                # The page is made for the card that PyTorch finds.
                studio.open()
            page = _page(studio, language, shared=share)
            end.callback(page.close, verbose=False)
        if init_service:
            _look_at_no_more()
            studio.preload(notify)
        own = Middleware(OwnAddress, names=(names := {server_name, *names_of_this_machine(), *hosts}), alone=alone)
        guards = [
            own,
            Middleware(SlowLogin),
            Middleware(BoundedUploads, uploads=studio.uploads),
            Middleware(VisitorLanguage),
        ]
        address = _launch(page, server_name, port, auth, guards, share=share)
        names.add(urlsplit(address).hostname or "")
        announce(address)
        end.callback(studio.stop)
        if not init_service:
            # The page is there already; a first song waits until this is done.
            studio.open()
        while True:
            time.sleep(DAY_S)


def _look_at_no_more() -> None:
    """Let collections of garbage leave out what is here now.

    After a run that fails, garbage is collected; what is here stays, and looking at it takes half a second. Before a
    model is loaded: what is frozen and part of a cycle is never freed.
    """
    gc.collect()
    gc.freeze()


def _page(studio: Any, language: str | None, *, shared: bool) -> Any:
    """Return the page in a language, or in that of each visitor's browser for None."""
    from acestep.ui.events import PLAN, RUN, wire
    from acestep.ui.frame import Frame
    from acestep.ui.gallery import Gallery
    from acestep.ui.one_server import without_servers
    from acestep.ui.own_words import speak_as
    from acestep.ui.page import lay_out
    from acestep.ui.places import Places
    from acestep.ui.visitor_language import in_every_language, language_of_visitor
    from acestep.ui.waiting import limit_waiting
    from acestep.ui.words import PageText

    gallery, places = Gallery(), Places()

    def build(page: Any, words: Any) -> None:
        with page:
            wire(page, studio, gallery, places, words, lay_out(words, studio))

    speak_as(language_of_visitor if language is None else lambda: language)
    with without_servers():
        if language is None:
            page: Any = in_every_language(build)
        else:
            page = Frame(PageText(language))
            build(page, PageText(language))
        page.queue(max_size=MOST_WAITING)
    limit_waiting(page, lambda event: event is not None and event.api_name in (RUN, PLAN), shared=shared)
    return page


def _launch(
    page: Any, server_name: str, port: int, auth: Sequence[tuple[str, str]], guards: Sequence[Any], *, share: bool
) -> str:
    from acestep.ui.frame import STYLE, theme

    try:
        _, local, public = page.launch(
            prevent_thread_lock=True,
            quiet=True,
            inline=False,
            show_error=True,
            server_name=server_name,
            server_port=port,
            share=share,
            auth=list(auth) or None,
            theme=theme(),
            css_paths=STYLE,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            max_file_size=LARGEST_UPLOAD_BYTES,
            state_session_capacity=MOST_STATES,
            app_kwargs={
                "exception_handlers": {Exception: _internal_error},
                "middleware": list(guards),
                "routes": _closed(),
            },
        )
    except OSError as error:
        raise RunFailedError(f"The page could not be opened on port {port} of {server_name} ({error}).") from None
    if share and not public:
        raise RunFailedError("No public address could be had; look at the network, or leave --share out.")
    return str(public or local).rstrip("/")


def _closed() -> list[Any]:
    """Routes that come before gradio's and answer 404: its channel for developers, a stream that never ends."""
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def not_here(_: Any) -> PlainTextResponse:
        return PlainTextResponse("Not Found", 404)

    return [Route(f"{prefix}/dev/reload", not_here) for prefix in ("", "/gradio_api")]


async def _internal_error(_: Any, __: Exception) -> Any:
    """The answer to a request that caused an error inside gradio."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": "This request could not be understood; reload the page and try again."}, 500)
