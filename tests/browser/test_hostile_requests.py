"""A client that can reach the UI cannot break it or get data out of it."""

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import soundfile

from tests.browser.hostile import API, Attempt, Place, attempts
from tests.browser.serving import Server
from tests.browser.wire import Wire, files

ANSWER_S = 60.0
WORDS = "this must stay private"
LEAKS = (WORDS.encode(), b"root:x:0:0", b"Traceback (most recent call last)")


def test_two_hundred_hostile_requests_break_nothing_and_reach_nothing_outside(server: Server) -> None:
    secret = _secret(server.folder / "private" / "song.wav")
    with Wire(server.url) as wire, _listener() as (address, visitors):
        place = Place(out=server.out, secret=secret, listener=address, endpoints=wire.defaults)
        before, earlier = _outside(server), len(_written(server))
        complaints = [complaint for attempt in attempts(7, 200, place) for complaint in _complaints(server, attempt)]
    assert complaints == []
    assert visitors == []
    assert _outside(server) == before
    assert str(secret) not in {line["what"] for line in server.observed("read")}
    assert [path for path in _written(server)[earlier:] if not _own(server, path)] == []
    with Wire(server.url) as wire:
        answer = wire.call("generate", caption="rain", duration=2, steps=1, batch=1, think=False)
    assert answer.event == "complete", answer
    assert len(files(answer.data)) >= 1


def _complaints(server: Server, attempt: Attempt) -> list[str]:
    """Return what is wrong with the server's answer to an attempt."""
    try:
        status, body = _send(server.url, attempt.method, attempt.path, attempt.content, attempt.headers)
        said = [*_wrong(status, body, headless=attempt.method == "HEAD")]
        event_id = _event_id(body) if attempt.endpoint and status == 200 else ""
        if event_id:
            said += _wrong(*_send(server.url, "GET", f"{API}/call/{attempt.endpoint}/{event_id}"), stream=True)
    except (OSError, http.client.HTTPException) as error:
        said = [f"no answer: {error!r}"]
    return [f"{complaint} to {attempt.short}" for complaint in said]


def _wrong(status: int, body: bytes, *, stream: bool = False, headless: bool = False) -> Iterator[str]:
    if status >= 500 and not headless and not _message(body):
        yield f"{status} without a message ({body[:100]!r})"
    if leak := next((leak for leak in LEAKS if leak in body), b""):
        yield f"{status} with {leak!r}"
    if stream:
        event, _, data = body.decode().strip().rpartition("\n\n")[2].partition("\ndata: ")
        if event == "event: error" and not _message(data.encode()):
            yield f"an event of error without a message ({data[:100]!r})"
        elif event not in ("event: error", "event: complete"):
            yield f"a stream without an end ({body[-100:]!r})"


def _message(body: bytes) -> str:
    """The failure text that the page shows."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    said = document.get("error") or document.get("detail") if isinstance(document, dict) else document
    return str(said or "")


def _event_id(body: bytes) -> str:
    document = json.loads(body)
    return str(document.get("event_id", "")) if isinstance(document, dict) else ""


def _send(url: str, method: str, path: str, content: bytes = b"", headers: object = None) -> tuple[int, bytes]:
    """A request exactly as spelled; clients for honest programs would tidy its path."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_S)
    try:
        connection.request(method, path, body=content or None, headers=dict(headers or {}))  # type: ignore[call-overload]
        response = connection.getresponse()
        try:
            return response.status, response.read()
        except http.client.IncompleteRead as error:
            # Streams of events end without ceremony after saying what went wrong.
            return response.status, error.partial
    finally:
        connection.close()


def _secret(path: Path) -> Path:
    """A song outside the output folder: one that could be played if it could be reached."""
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.zeros((48_000, 2), dtype=np.float32), 48_000)
    with path.open("ab") as song:
        song.write(WORDS.encode())
    return path


def _written(server: Server) -> list[Path]:
    return [Path(line["what"]) for line in server.observed("write") if line["what"]]


def _own(server: Server, path: Path) -> bool:
    """Return whether the server may write to a path: songs, uploads, library caches, devices."""
    folders = (server.out, server.folder / "tmp", *_library_homes(server), Path("/dev"))
    return any(path.is_relative_to(folder) for folder in folders)


def _library_homes(server: Server) -> tuple[Path, ...]:
    """Folders that libraries write to from their first import on."""
    return server.folder / ".cache", server.folder / ".config"


def _outside(server: Server) -> dict[str, tuple[int, int]]:
    """Every file that is not the server's to change: its size and time of change."""
    kept = (server.folder / "tmp", *_library_homes(server), server.out)
    found = {}
    for folder, folders, names in os.walk(server.folder):
        folders[:] = [name for name in folders if Path(folder) / name not in kept]
        for path in (Path(folder) / name for name in names if name not in ("journal", "stderr")):
            found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


@contextmanager
def _listener() -> Iterator[tuple[str, list[str]]]:
    """An address on loopback that records its clients."""
    visitors: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def wait() -> None:
            try:
                while True:
                    visitor, _ = door.accept()
                    visitors.append(visitor.recv(1000).decode(errors="replace"))
                    visitor.close()
            except OSError:
                return

        waiting = threading.Thread(target=wait)
        waiting.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}/song.wav", visitors
        finally:
            door.shutdown(socket.SHUT_RDWR)
            waiting.join()
