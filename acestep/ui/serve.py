"""Serves the page on a port of this machine, until it is interrupted."""

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from acestep.errors import RunFailedError, UsageError
from acestep.limits.plan import Overrides
from acestep.proxies import LOOPBACK, reach_directly, require_usable, without_proxies

LARGEST_UPLOAD = "256mb"
"""Upload limit: ten minutes of stereo at 48 kHz in 32 bits take 220 MB."""

DAY_S = 86_400

MOST_WAITING = 64
"""The largest number of waiting runs in the queue."""


def serve_page(
    *,
    model: str,
    overrides: Overrides,
    out: Path,
    language: str,
    server_name: str,
    port: int,
    auth: Sequence[tuple[str, str]],
    share: bool,
    alone: bool,
    init_service: bool,
    announce: Callable[[str], None],
    notify: Callable[[str], None],
) -> None:
    """Serve the page until SIGINT or SIGTERM, which raise `KeyboardInterrupt`; `announce` is called with its address.

    `alone` restricts it to this machine, even against other sites' pages in a browser here.
    """
    port = free_port(server_name, port)
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as end:
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

        from acestep.ui.studio import Studio
        from acestep.ui.words import PageText

        studio = Studio(model, overrides, out.absolute())
        end.callback(studio.close)
        if init_service:
            studio.preload(notify)
        page = _page(studio, PageText(language))
        end.callback(page.close, verbose=False)
        address = _launch(page, server_name, port, auth, share=share, alone=alone)
        announce(address)
        end.callback(studio.stop)
        while True:
            time.sleep(DAY_S)


def _page(studio: Any, words: Any) -> Any:
    from acestep.ui.events import wire
    from acestep.ui.frame import Frame
    from acestep.ui.page import lay_out

    page = Frame(words)
    with page:
        wire(page, studio, words, lay_out(words, studio))
    return page.queue(max_size=MOST_WAITING)


def _launch(
    page: Any, server_name: str, port: int, auth: Sequence[tuple[str, str]], *, share: bool, alone: bool
) -> str:
    from starlette.middleware import Middleware

    from acestep.ui.frame import STYLE, theme
    from acestep.ui.loopback_only import LoopbackOnly

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
            max_file_size=LARGEST_UPLOAD,
            app_kwargs={
                "exception_handlers": {Exception: _internal_error},
                "middleware": [Middleware(LoopbackOnly)] if alone else [],
            },
        )
    except OSError as error:
        raise RunFailedError(f"The page could not be opened on port {port} of {server_name} ({error}).") from None
    if share and not public:
        raise RunFailedError("No public address could be had; look at the network, or leave --share out.")
    return str(public or local).rstrip("/")


async def _internal_error(_: Any, __: Exception) -> Any:
    """The answer to a request that caused an error inside gradio."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": "This request could not be understood; reload the page and try again."}, 500)


def free_port(server_name: str, port: int) -> int:
    """Return the port, or a free one for 0; raise `UsageError` if it is not available."""
    host = server_name.strip("[]")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise UsageError(
            f"the page cannot be opened on port {port} of {server_name} ({error.strerror or error});"
            " choose another with --port or --server-name"
        ) from None


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
