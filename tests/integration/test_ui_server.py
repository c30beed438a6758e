"""The page as a server: songs, a sentence for invalid requests, only its own files, a clean end."""

import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from acestep.errors import Exit
from acestep.serving.bounds import MOST_OF_A_VISITOR
from tests.proxy import http_proxy

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100
CERTIFICATES = ssl.create_default_context()
"""No page is asked for any, and httpx would read the machine's for every question."""


class Page:
    """A page in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.temp = folder / "temp"
        self.temp.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "acestep", "--port", "0", "--model", "tiny", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temp), "MAX_CUDA_VRAM": "8"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.address = self.process.stdout.readline().strip()
        started, _, _ = select.select([self.process.stderr], [], [], 0)
        self.errors_of_the_start = os.read(self.process.stderr.fileno(), 1 << 16).decode() if started else ""
        self.cookies = httpx.Cookies()

    def get(self, path: str) -> httpx.Response:
        """What is at a path of the page."""
        return httpx.get(self.address + path, cookies=self.cookies, timeout=PATIENCE_S, verify=CERTIFICATES)

    def post(self, path: str, body: Any) -> httpx.Response:
        """The answer to a body, even one that no JSON should hold."""
        return httpx.post(
            self.address + path,
            content=json.dumps(body),
            headers={"content-type": "application/json"},
            cookies=self.cookies,
            timeout=PATIENCE_S,
            verify=CERTIFICATES,
        )

    def caches(self) -> list[Path]:
        """The folders of uploads and copies."""
        return list(self.temp.glob("acestep-ui-*"))

    def call(self, name: str, values: list[Any]) -> tuple[str, Any]:
        """The answer of a named endpoint: ``complete`` or ``error``, and what it said."""
        asked = self.post(f"/gradio_api/call/{name}", {"data": values})
        if asked.status_code != 200:
            return "error", asked.json()
        event = asked.json()["event_id"]
        answer = self.get(f"/gradio_api/call/{name}/{event}").text
        kind, said = answer.strip().splitlines()[-2:]
        return kind.removeprefix("event: "), json.loads(said.removeprefix("data: "))

    @cached_property
    def endpoints(self) -> dict[str, Any]:
        """Every endpoint by name, as the page tells; it tells the same each time, and thinks long about it."""
        named: dict[str, Any] = self.get("/gradio_api/info").json()["named_endpoints"]
        return named

    def values(self, name: str, **given: Any) -> list[Any]:
        """An endpoint's inputs with their defaults."""
        about = self.endpoints[f"/{name}"]
        inputs = {one["parameter_name"]: one["parameter_default"] for one in about["parameters"]}
        assert set(given) <= set(inputs)
        return list((inputs | given).values())

    def end(self, how: signal.Signals) -> int:
        """Its exit code."""
        self.process.send_signal(how)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page that plans for a card of 8 GiB, opened and used past proxies that work and that cannot."""
    with http_proxy() as (address, asked):
        proxies = {"http_proxy": address, "HTTPS_PROXY": ":foo", "ALL_PROXY": "socks://127.0.0.1:1", "NO_PROXY": "corp"}
        opened = Page(tmp_path_factory.mktemp("page"), **proxies)
        yield opened
        assert opened.end(signal.SIGTERM) == Exit.INTERRUPTED
        assert opened.caches() == []
    assert asked == [], "loopback never goes through a proxy"


def brief(page: Page, **given: Any) -> list[Any]:
    return page.values("generate", **{"caption": "drums", "duration": 1, "steps": 1, "think": False} | given)


def test_the_libraries_print_nothing_when_they_are_imported(page: Page) -> None:
    assert page.errors_of_the_start == ""


def test_a_song_is_made_served_and_kept(page: Page) -> None:
    kind, answer = page.call("generate", brief(page))
    assert kind == "complete", answer
    (served,) = answer[2]
    kept = [path for path in (page.folder / "out").rglob("*.flac") if path.name == served["orig_name"]]
    assert len(kept) == 1
    assert soundfile.info(kept[0]).frames == 48_000
    assert httpx.get(served["url"], timeout=PATIENCE_S).content == kept[0].read_bytes()
    assert "noise" in answer[0]


HOSTILE: tuple[dict[str, Any], ...] = (
    {"duration": float("nan")},
    {"duration": 1e308},
    {"duration": -5},
    {"batch": 10**30},
    {"batch": "many"},
    {"seed": -2, "random_seed": False},
    {"caption": None, "lyrics": ["a"]},
    {"caption": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}},
    {"reference_audio": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}},
    {"reference_audio": {"path": "../../../etc/passwd", "meta": {"_type": "gradio.FileData"}}},
    {"reference_audio": "/etc/passwd"},
    {"task": "cover"},
    {"task": "whistle"},
    {"tier": "tier99"},
    {"lm": "9B"},
    {"backend": {}},
    {"offload_stream": "\ud800"},
    {"audio_format": "../../x"},
    {"adapter": "../../x"},
    {"compile": 3},
    {"keyscale": "x" * 200_000},
)


@pytest.mark.parametrize("given", HOSTILE, ids=lambda given: ",".join(given))
def test_invalid_input_gives_a_sentence(page: Page, given: dict[str, Any]) -> None:
    kind, answer = page.call("generate", brief(page, **given))
    assert kind == "error"
    assert len(answer["error"]) > 20
    assert "Traceback" not in answer["error"]


def test_too_few_values_too_many_and_none_at_all_are_a_sentence(page: Page) -> None:
    for values in ([], brief(page)[:-1], [*brief(page), 1]):
        kind, answer = page.call("generate", values)
        assert kind == "error"
        assert "values came" in answer["error"]


def test_an_address_is_never_fetched(page: Page) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.5)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/song.wav"
        for file in ({"path": address}, {"path": "song.wav", "url": address}):
            for field in ("reference_audio", "caption"):
                values = brief(page, **{field: file | {"meta": {"_type": "gradio.FileData"}}})
                assert page.call("generate", values)[0] == "error"
        with pytest.raises(TimeoutError):
            canary.accept()


def test_only_its_own_copies_are_served(page: Page) -> None:
    page.call("generate", brief(page))
    song = next((page.folder / "out").rglob("*.flac"))
    (page.folder / "secret.txt").write_text("secret")
    for path in (song, page.folder / "secret.txt", Path("/etc/passwd"), page.folder / "out"):
        answer = page.get(f"/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_an_error_inside_gradio_gives_a_sentence(page: Page) -> None:
    for answer in (
        page.post("/gradio_api/call/v2/nonsense", {}),
        page.post("/gradio_api/queue/join", {"fn_index": 999, "data": []}),
        page.post("/gradio_api/run/predict", {"fn_index": 999, "data": []}),
    ):
        assert answer.status_code < 500 or answer.json()["error"]


def test_requests_from_another_site_are_refused(page: Page) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        seen = httpx.get(f"{page.address}/config", headers=headers, timeout=PATIENCE_S)
        sent = httpx.post(
            f"{page.address}/gradio_api/upload",
            files={"files": ("song.wav", b"x" * 1_000)},
            headers=headers,
            timeout=PATIENCE_S,
        )
        assert (seen.status_code, sent.status_code) == (403, 403)
        assert "this machine alone" in sent.json()["error"]
    own = httpx.get(f"{page.address}/config", headers={"origin": page.address}, timeout=PATIENCE_S)
    assert own.status_code == 200


def test_the_settings_of_a_tier_are_asked_for_by_name(page: Page) -> None:
    kind, answer = page.call("tier", page.values("tier", tier="tier1", batch=8, duration=600))
    assert kind == "complete"
    tier, init_lm, *_ = answer
    assert (tier["value"], init_lm["value"], init_lm["interactive"]) == ("tier1", False, True)
    kind, answer = page.call("settings", page.values("settings", offload_cpu=False))
    assert kind == "complete"
    assert any("Offload none needs more memory" in str(value) for value in answer)
    kind, answer = page.call("guard", page.values("guard", caption="x", batch=4, duration=600))
    assert kind == "complete"
    assert "GiB" in answer[0]


@pytest.mark.soak
def test_with_passwords_access_is_refused_and_an_interrupt_ends_cleanly(
    tmp_path: Path,
) -> None:
    page = Page(tmp_path, "--auth", "ann:secret", "--init-service", "--language", "ko")
    for answer in (page.get("/config"), page.post("/gradio_api/call/generate", {"data": []})):
        assert answer.status_code == 401
    login = httpx.post(f"{page.address}/login", data={"username": "ann", "password": "secret"}, timeout=PATIENCE_S)
    page.cookies = login.cookies
    assert page.get("/config").status_code == 200
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        foreign = httpx.get(f"{page.address}/config", headers=headers, cookies=page.cookies, timeout=PATIENCE_S)
        assert foreign.status_code == 403
    values = page.values("generate", caption="x", duration=300, steps=200, think=False)
    codes = [page.post("/gradio_api/call/generate", {"data": values}).status_code for _ in range(MOST_OF_A_VISITOR + 2)]
    assert codes == [200] * MOST_OF_A_VISITOR + [503] * 2
    assert page.caches()
    assert page.end(signal.SIGINT) == Exit.INTERRUPTED
    assert page.caches() == []
    assert not list((tmp_path / "out").rglob("*.flac"))
