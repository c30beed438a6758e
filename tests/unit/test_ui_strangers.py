"""A page that others can reach: passwords are slow to guess, files and runs are bounded, other sites are refused."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from acestep.serving.bounds import MOST_OF_A_VISITOR
from acestep.serving.own_address import OwnAddress, is_allowed
from acestep.serving.uploads import MOST_FILES, Uploads
from acestep.ui import slow_login
from acestep.ui.bounded_uploads import MOST_OF_AN_ADDRESS, BoundedUploads
from acestep.ui.slow_login import MOST_AT_ONCE, SlowLogin
from acestep.ui.waiting import limit_waiting

PAGE = "http://192.168.1.5:7860"


@pytest.mark.parametrize(
    ("host", "origin", "may"),
    [
        ("192.168.1.5:7860", "", True),
        ("192.168.1.5:7860", "http://192.168.1.5:7860", True),
        ("studio.local:7860", "http://studio.local:7860", True),
        ("songs.example", "https://songs.example", True),
        ("127.0.0.1:7860", "https://songs.example", True),
        ("evil.example", "", False),
        ("evil.example:7860", "http://evil.example:7860", False),
        ("192.168.1.5.evil.example", "", False),
        ("192.168.1.5:7860", "http://evil.example", False),
        ("192.168.1.5:7860", "http://192.168.1.6:7860", False),
        ("192.168.1.5:7860", "null", False),
        ("", "", False),
    ],
)
def test_a_page_for_others_answers_to_its_own_names_and_its_own_pages(host: str, origin: str, may: bool) -> None:
    assert is_allowed(host, origin, {"studio.local", "songs.example"}, alone=False) == may


def asked(
    app: object, requests: Callable[[httpx.AsyncClient], Awaitable[list[int]]], address: str = "10.0.0.1"
) -> list[int]:
    """The status codes that requests from an address to an application get."""

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app=app, client=(address, 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=PAGE) as client:
            return await requests(client)

    return asyncio.run(run())


def test_another_site_is_refused_before_it_can_use_the_login_of_a_visitor() -> None:
    app = OwnAddress(Starlette(routes=[Route("/", lambda _: JSONResponse({}))]), {"studio.local"}, alone=False)

    async def requests(client: httpx.AsyncClient) -> list[int]:
        headers = ({}, {"origin": PAGE}, {"origin": "http://evil.example"}, {"host": "evil.example"})
        return [(await client.get("/", headers=one)).status_code for one in headers]

    assert asked(app, requests) == [200, 200, 403, 403]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before logins, in seconds; none is spent."""
    told: list[float] = []
    pause = asyncio.sleep

    async def noted(seconds: float) -> None:
        told.append(seconds)
        await pause(0)

    monkeypatch.setattr(slow_login.asyncio, "sleep", noted)
    return told


def login_page() -> SlowLogin:
    async def login(request: Request) -> JSONResponse:
        right = (await request.body()) == b"right"
        return JSONResponse({}, 200 if right else 400)

    return SlowLogin(Starlette(routes=[Route("/login", login, methods=["POST"])]))


def test_every_wrong_password_makes_the_next_wait_longer_until_the_right_one(waits: list[float]) -> None:
    async def requests(client: httpx.AsyncClient) -> list[int]:
        tried = [b"wrong"] * 7 + [b"right"] * 2
        return [(await client.post("/login", content=password)).status_code for password in tried]

    assert asked(login_page(), requests) == [400] * 7 + [200] * 2
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]


def test_guesses_at_the_same_time_wait_in_turn_and_too_many_are_refused(waits: list[float]) -> None:
    async def requests(client: httpx.AsyncClient) -> list[int]:
        answers = await asyncio.gather(*(client.post("/login", content=b"wrong") for _ in range(20)))
        return sorted(answer.status_code for answer in answers)

    codes = asked(login_page(), requests)
    looked_at = codes.count(400)
    # The first may have its answer before the last arrives.
    assert MOST_AT_ONCE <= looked_at <= MOST_AT_ONCE + 1
    assert codes.count(429) == 20 - looked_at
    assert len(waits) == looked_at - 1


def stored(folder: Path, uploads: Uploads, name: str, size: int) -> Path | None:
    """Upload a file; None where there was no room."""
    if not uploads.expect(size):
        return None
    path = folder / name
    path.write_bytes(bytes(size))
    uploads.arrived([path], size)
    return path


def test_uploads_that_a_visit_needs_fill_the_room_and_others_make_way(tmp_path: Path) -> None:
    uploads = Uploads(most_bytes=100)
    first, second = stored(tmp_path, uploads, "1", 40), stored(tmp_path, uploads, "2", 40)
    assert first is not None
    assert second is not None
    uploads.need("ann", [first])
    assert stored(tmp_path, uploads, "3", 40) is not None
    assert (first.exists(), second.exists()) == (True, False)
    uploads.need("bob", [tmp_path / "3"])
    assert stored(tmp_path, uploads, "4", 40) is None
    uploads.leave("ann")
    assert not first.exists()
    assert stored(tmp_path, uploads, "4", 40) is not None


def test_a_file_of_two_visits_stays_until_both_have_ended(tmp_path: Path) -> None:
    uploads = Uploads()
    path = stored(tmp_path, uploads, "same", 10)
    assert path is not None
    uploads.need("ann", [path])
    uploads.need("bob", [path])
    uploads.leave("ann")
    assert path.exists()
    uploads.leave("bob")
    assert not path.exists()


def test_a_visit_keeps_only_its_newest_files_and_no_file_that_was_not_uploaded(tmp_path: Path) -> None:
    uploads = Uploads()
    song = tmp_path / "song.flac"
    song.write_bytes(b"made here")
    for number in range(MOST_FILES + 2):
        path = stored(tmp_path, uploads, str(number), 1)
        assert path is not None
        uploads.need("ann", [path, song])
    assert not (tmp_path / "0").exists()
    assert len(list(tmp_path.iterdir())) == MOST_FILES + 1
    uploads.leave("ann")
    assert list(tmp_path.iterdir()) == [song]


def test_an_upload_without_room_or_without_its_size_is_refused(tmp_path: Path) -> None:
    uploads = Uploads(most_bytes=1_000)

    async def upload(request: Request) -> JSONResponse:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        path.write_bytes(await request.body())
        uploads.need("ann", [path])
        return JSONResponse([str(path)])

    async def requests(client: httpx.AsyncClient) -> list[int]:
        async def pieces():
            yield b"x"

        codes = []
        for content in (bytes(400), bytes(400), pieces(), bytes(10**6)):
            codes.append((await client.post("/gradio_api/upload", content=content)).status_code)
        for path in tmp_path.iterdir():
            uploads.need("ann", [path])
        codes.append((await client.post("/gradio_api/upload", content=bytes(400))).status_code)
        uploads.leave("ann")
        codes.append((await client.post("/gradio_api/upload", content=bytes(400))).status_code)
        return codes

    app = BoundedUploads(Starlette(routes=[Route("/gradio_api/upload", upload, methods=["POST"])]), uploads)
    assert asked(app, requests) == [200, 200, 411, 413, 413, 200]


@pytest.mark.parametrize(("address", "one_more"), [("10.0.0.1", 429), ("127.0.0.1", 200), ("::1", 200)])
def test_only_so_many_files_of_an_address_arrive_at_once(address: str, one_more: int) -> None:
    """Each keeps room free before its first byte is here. Behind a proxy all visitors have this machine's address."""
    uploads, go = Uploads(most_bytes=10_000), asyncio.Event()

    async def upload(request: Request) -> JSONResponse:
        await request.body()
        await go.wait()
        return JSONResponse([])

    async def requests(client: httpx.AsyncClient) -> list[int]:
        def post() -> "asyncio.Task[httpx.Response]":
            return asyncio.ensure_future(client.post("/gradio_api/upload", content=bytes(10)))

        arriving = [post() for _ in range(MOST_OF_AN_ADDRESS)]
        await asyncio.sleep(0.05)
        another = post()
        await asyncio.sleep(0.05)
        go.set()
        codes = [(await one).status_code for one in (another, *arriving)]
        return [*codes, (await post()).status_code]

    app = BoundedUploads(Starlette(routes=[Route("/gradio_api/upload", upload, methods=["POST"])]), uploads)
    assert asked(app, requests, address) == [one_more, *[200] * MOST_OF_AN_ADDRESS, 200]


class Queue:
    """gradio's queue, as far as the limit looks at it: every run that was let in waits."""

    def __init__(self) -> None:
        self.event_ids_to_events: dict[str, SimpleNamespace] = {}

    async def push(
        self, body: SimpleNamespace, request: SimpleNamespace, username: str | None
    ) -> tuple[bool, str, str]:
        name = str(len(self.event_ids_to_events))
        self.event_ids_to_events[name] = SimpleNamespace(
            fn=EVENTS[body.fn_index], username=username, request=request, session_hash=body.session_hash
        )
        return True, name, "success"


EVENTS = {0: SimpleNamespace(api_name="generate"), 1: SimpleNamespace(api_name="guard")}


def pushed(queue: Queue, *, event: int = 0, host: str = "10.0.0.1", user: str | None = None, session: str = "s") -> str:
    body = SimpleNamespace(fn_index=event, session_hash=session)
    request = SimpleNamespace(client=SimpleNamespace(host=host))
    return asyncio.run(queue.push(body=body, request=request, username=user))[2]


def limited(*, shared: bool = False) -> Queue:
    queue = Queue()
    page = SimpleNamespace(_queue=queue, fns=EVENTS)
    limit_waiting(page, lambda event: event is not None and event.api_name == "generate", shared=shared)
    return queue


def test_only_so_many_runs_of_one_visitor_wait_whatever_session_they_name() -> None:
    queue = limited()
    told = [pushed(queue, session=f"session {number}") for number in range(MOST_OF_A_VISITOR + 2)]
    assert told == ["success"] * MOST_OF_A_VISITOR + ["queue_full"] * 2
    assert pushed(queue, event=1) == "success"
    assert pushed(queue, host="10.0.0.2") == "success"
    assert pushed(queue, user="ann") == "success"
    queue.event_ids_to_events.pop("0")
    assert pushed(queue) == "success"
    assert pushed(queue) == "queue_full"


def test_users_are_told_apart_by_name_and_visitors_of_a_public_address_by_session() -> None:
    queue = limited()
    assert {pushed(queue, user="ann", host=f"10.0.0.{number}") for number in range(MOST_OF_A_VISITOR)} == {"success"}
    assert pushed(queue, user="ann", host="10.0.1.1") == "queue_full"
    assert pushed(queue, user="bob") == "success"
    queue = limited(shared=True)
    assert {pushed(queue, session="a") for _ in range(MOST_OF_A_VISITOR)} == {"success"}
    assert pushed(queue, session="a") == "queue_full"
    assert pushed(queue, session="b") == "success"
