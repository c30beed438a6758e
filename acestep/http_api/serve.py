"""Serves the HTTP API on a port of this machine, until it is interrupted."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from acestep.adapters.choice import Adapter
from acestep.errors import RunFailedError
from acestep.importing import without_collection
from acestep.limits.plan import Overrides
from acestep.serving.bounds import HOUR_S
from acestep.serving.port import names_of_this_machine, open_port, port_of

if TYPE_CHECKING:
    from fastapi import FastAPI

LAST_ANSWERS_S: Final = 5
"""Seconds that answers may still take when the server ends."""


def serve_api(
    *,
    model: str,
    overrides: Overrides,
    adapters: Sequence[Adapter],
    out: Path,
    server_name: str,
    port: int,
    tokens: Sequence[str],
    alone: bool,
    hosts: Sequence[str],
    init_service: bool,
    announce: Callable[[str], None],
    notify: Callable[[str], None],
) -> None:
    """Serve until `KeyboardInterrupt`; `announce` is called with the address.

    Songs are made with all `adapters`, unless a request chooses among those that stay apart from the weights.
    `tokens`, if there are any, are required. `alone` restricts the server to this machine; otherwise it answers to
    numeric addresses, this machine's name and `hosts`. Requests from a page of another site are refused in any case.
    """
    with ExitStack() as end:
        # At last: closing collects garbage, which takes long while the libraries' objects are looked at too.
        end.callback(gc.unfreeze)
        listening = end.enter_context(open_port(server_name, port, "server"))
        uploaded = Path(end.enter_context(TemporaryDirectory(prefix="acestep-serve-")))
        with without_collection():
            from acestep.audio.write import open_folder
            from acestep.http_api.access import Server
            from acestep.http_api.app import api_app
            from acestep.http_api.hidden_places import places_of
            from acestep.http_api.queue import RequestQueue
            from acestep.http_api.recordings import Recordings
            from acestep.http_api.song_folders import delete_left_behind
            from acestep.serving.song_maker import SongMaker
            from acestep.serving.uploads import Uploads

            open_folder(out)
            delete_left_behind(out)
            maker = SongMaker(model, overrides, adapters)
            end.callback(maker.close)
            maker.open()
        # After a run that fails, garbage is collected; what is here now stays, and looking at it takes half a second.
        gc.collect()
        gc.freeze()
        if init_service:
            plan = maker.plan(maker.overrides)
            maker.preload(plan, think=plan.init_lm, notify=notify)
        recordings = Recordings(uploaded, Uploads())
        queue = RequestQueue(maker, out.absolute(), recordings)
        end.callback(queue.close)
        names = {server_name, *names_of_this_machine(), *hosts}
        places = places_of(out.absolute(), model, [adapter.path for adapter in adapters])
        server = Server(queue=queue, recordings=recordings, places=places, tokens=tuple(tokens))
        app = api_app(server, names=names, alone=alone)
        end.enter_context(answering(app, listening))
        # Streams of progress end when the queue does, and the server waits for them.
        end.callback(queue.stop)
        host = server_name.strip("[]")
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port_of(listening)}")
        while True:
            time.sleep(HOUR_S)
            queue.expire()
            recordings.expire()
            delete_left_behind(out)


@contextmanager
def answering(app: "FastAPI", listening: socket.socket) -> Iterator[None]:
    """Let an application answer on a socket inside the block, in a thread of its own."""
    import uvicorn

    # A client could write any address into X-Forwarded-For, and so have the limits of many.
    config = uvicorn.Config(
        app,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="http", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RunFailedError("The server could not be started; its log says why.")
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
