"""The UI is not reachable from the network unless that is allowed, with a password or with an explicit option."""

import time
from pathlib import Path

import httpx
import pytest

from tests.browser.conftest import Visit
from tests.browser.serving import acestep, serving
from tests.browser.studio import Studio
from tests.browser.wire import Wire


@pytest.mark.parametrize(
    "options",
    [
        ["--share"],
        ["--server-name", "0.0.0.0"],  # noqa: S104 it is refused
        ["--server-name", "::"],
        ["--server-name", "192.0.2.7"],
        ["--share", "--server-name", "127.0.0.1"],
    ],
    ids=" ".join,
)
def test_the_network_needs_a_password(options: list[str], tmp_path: Path) -> None:
    done = acestep(tmp_path, "ui", "--port", "0", "--model", "tiny", *options)
    assert done.returncode == 2
    assert "--auth" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("login", ["kim", ":", "kim:", ":word", ""])
def test_a_login_without_a_name_or_a_password_is_refused(login: str, tmp_path: Path) -> None:
    done = acestep(tmp_path, "ui", "--port", "0", "--model", "tiny", "--auth", login)
    assert done.returncode == 2
    assert "USER:PASSWORD" in done.stderr


def test_with_a_login_nothing_is_shown_or_done_without_it(tmp_path: Path, visit: Visit, port: str) -> None:
    with serving(tmp_path, "--port", port, "--auth", "kim:a:word", "--auth", "lee:other") as server:
        for path in ("/config", "/gradio_api/info"):
            assert httpx.get(server.url + path).status_code == 401
        assert httpx.post(f"{server.url}/gradio_api/call/generate", json={"data": []}).status_code == 401
        page = visit(server.url)
        name, word = page.locator("input:not([type=password])"), page.locator("input[type=password]")
        for password, status in (("wrong", 400), ("a:word", 200)):
            name.wait_for()
            assert page.locator("#generate").count() == 0
            name.fill("kim")
            word.fill(password)
            with page.expect_response("**/login") as answer:
                word.press("Enter")
            assert answer.value.status == status
        Studio(page)


def test_ctrl_c_ends_it_in_the_middle_of_a_song(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with Wire(server.url) as wire:
            wire.join("generate", caption="rain", duration=300, steps=100, think=False)
        server.wait_for("begin")
        started = time.monotonic()
        assert server.interrupt() == 130
        assert time.monotonic() - started < 15
        assert "Traceback" not in server.said
