"""The HTTP API on a port of this machine, with a maker of songs that computes nothing or with the tiny model."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from acestep import api
from acestep.adapter_memory import NO_ADAPTERS
from acestep.adapters.choice import Adapter
from acestep.hardware.card import simulated_card
from acestep.http_api.access import Server
from acestep.http_api.app import api_app
from acestep.http_api.hidden_places import places_of
from acestep.http_api.maker import Maker
from acestep.http_api.queue import RequestQueue
from acestep.http_api.recordings import Recordings
from acestep.http_api.serve import answering
from acestep.limits.machine import plan_of_card
from acestep.limits.plan import Overrides, Plan
from acestep.request import Request
from acestep.result import Result
from acestep.serving.port import open_port, port_of
from acestep.serving.uploads import Uploads
from acestep.serving.visits import StoppedError, Visit
from acestep.song import DecodePath, Song
from acestep.stage import Stage, StageReport

PATIENCE_S = 60
CERTIFICATES = ssl.create_default_context()
"""No server is asked for any, and httpx would read the machine's for every client."""

ENDED = ("finished", "stopped", "failed")
SONGS = "/v1/requests"


class FakeMaker:
    """Writes silence as the songs of a request.

    A request whose caption is a key of `errors` fails with that error, and one whose caption begins with "wait" runs
    until it is stopped or `go` is set.
    """

    def __init__(self, errors: dict[str, BaseException] | None = None) -> None:
        self.overrides = Overrides()
        self.adapters = (Adapter(path=Path("folk")), Adapter(path=Path("rock.safetensors"), scale=0.5))
        self.adapter_memory = NO_ADAPTERS
        self.used: list[Sequence[Adapter] | None] = []
        self.errors = errors or {}
        self.go = threading.Event()
        self.made: list[str] = []
        self.rests = 0
        self._stopping = threading.Event()
        self._running = threading.Lock()

    def plan(self, overrides: Overrides, request: Request | None = None) -> Plan:
        return plan_of_card(overrides, simulated_card(8), request)

    def generate(
        self,
        request: Request,
        plan: Plan,
        audio_format: str,
        visit: Visit,
        *,
        unasked: bool,
        mp3_bitrate: int | None = None,
        adapters: Sequence[Adapter] | None = None,
    ) -> dict[str, Any]:
        assert self._running.acquire(blocking=False), "two requests at once"
        try:
            self._step(visit, 1)
            while request.caption.startswith("wait") and not self.go.is_set():
                time.sleep(0.01)
                self._step(visit, 1)
            if request.caption in self.errors:
                raise self.errors[request.caption]
            self._step(visit, 2)
            self.made.append(request.caption)
            self.used.append(adapters)
            visit.folder.mkdir(parents=True, exist_ok=True)
            return api.write_songs(_silence(request), request, "tiny", plan, visit.folder, audio_format, mp3_bitrate)
        finally:
            self._running.release()

    def _step(self, visit: Visit, done: int) -> None:
        if self._stopping.is_set():
            raise StoppedError("the program is ending")
        visit.report(Stage.DENOISE, done, 2)

    def rest(self) -> None:
        self.rests += 1

    def stop(self) -> None:
        self._stopping.set()


def _silence(request: Request) -> Result:
    seconds = min(request.duration_s or 1.0, 1.0)
    audio = np.zeros((2, round(seconds * 48_000)), dtype=np.float32)
    stage = StageReport(
        name=Stage.DENOISE, seconds=0.1, songs_per_pass=1, peak_allocated_bytes=0, peak_reserved_bytes=0
    )
    return Result(
        request=request,
        songs=tuple(Song(seed=request.seed + number, audio=audio) for number in range(min(request.batch, 2))),
        stages=(stage,),
        songs_per_pass=1,
        decode_path=DecodePath.CPU,
        warnings=("This is silence.",),
    )


class Api:
    """A client of a server, with one of its tokens or without."""

    def __init__(self, address: str, token: str = "", **headers: str) -> None:
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.address = address
        self.http = httpx.Client(base_url=address, headers=headers, timeout=PATIENCE_S, verify=CERTIFICATES)

    def ask(self, **fields: Any) -> dict[str, Any]:
        """The document of a request that was taken."""
        answer = self.http.post(SONGS, json={"caption": "drums", "duration_s": 1, "seed": 3, **fields})
        assert answer.status_code == 202, answer.text
        document: dict[str, Any] = answer.json()
        assert answer.headers["location"] == f"{SONGS}/{document['id']}"
        return document

    def refused(self, status: int, **fields: Any) -> dict[str, Any]:
        """The error of a request that is not taken."""
        answer = self.http.post(SONGS, json={"caption": "drums", **fields})
        assert answer.status_code == status, answer.text
        return error_in(answer)

    def state(self, name: str) -> dict[str, Any]:
        """The document of a request."""
        document: dict[str, Any] = self.http.get(f"{SONGS}/{name}").raise_for_status().json()
        return document

    def until(self, name: str, *states: str, stage: str | None = None) -> dict[str, Any]:
        """The document of a request once it is in one of the states, or has ended."""
        end = time.monotonic() + PATIENCE_S
        while (said := self.state(name))["state"] not in (states or ENDED) or (stage and said["stage"] != stage):
            assert said["state"] not in ENDED, said
            assert time.monotonic() < end, said
            time.sleep(0.02)
        return said

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """The document of an upload that was taken."""
        answer = self.http.post("/v1/uploads", files={"file": (name, content)})
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document


def error_in(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, in the one form for errors."""
    document = answer.json()
    assert list(document) == ["error"]
    assert set(document["error"]) == {"kind", "message", "exit_code", "command"}
    assert len(document["error"]["message"]) > 10
    error: dict[str, Any] = document["error"]
    return error


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, or fail."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


class Served:
    """A running server, and what its operations work with."""

    def __init__(self, address: str, server: Server) -> None:
        self.address = address
        self.queue = server.queue
        self.recordings = server.recordings
        self.clients: list[Api] = []

    def client(self, token: str = "", **headers: str) -> Api:
        """Return a new client."""
        self.clients.append(Api(self.address, token, **headers))
        return self.clients[-1]


@contextmanager
def api_server(
    maker: Maker, folder: Path, *, tokens: tuple[str, ...] = (), uploads: Uploads | None = None, **how: Any
) -> Iterator[Served]:
    """A running server, ended as `acestep serve` ends it."""
    (folder / "uploads").mkdir()
    recordings = Recordings(folder / "uploads", uploads or Uploads())
    queue = RequestQueue(maker, folder / "out", recordings)
    try:
        server = Server(queue=queue, recordings=recordings, places=places_of(folder / "out"), tokens=tokens)
        with open_port("127.0.0.1", 0, "server") as listening, answering(api_app(server, **how), listening):
            served = Served(f"http://127.0.0.1:{port_of(listening)}", server)
            yield served
            for client in served.clients:
                client.http.close()
            queue.stop()
    finally:
        queue.close()


@pytest.fixture
def maker() -> FakeMaker:
    return FakeMaker()


@pytest.fixture
def served(maker: FakeMaker, tmp_path: Path) -> Iterator[Served]:
    with api_server(maker, tmp_path) as made:
        yield made
        maker.go.set()


@pytest.fixture
def client(served: Served) -> Api:
    return served.client()
