"""Chromium, and servers for it to visit. Without a Chromium each test is skipped, with the reason, and counted."""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.serving import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LACKING = [
    *([] if CHROMIUM else ["Chromium is not installed here (Debian: apt-get install chromium)"]),
    *([] if find_spec("playwright") else ["playwright is not installed here (pip install playwright)"]),
]

Visit = Callable[..., "Page"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if LACKING:
                item.add_marker(pytest.mark.skip(reason="; ".join(LACKING)))


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container gives Chromium no namespaces for its sandbox; it visits nothing but our own server.
        arguments = ["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: "Browser") -> Iterator[Visit]:
    """Opens a page as a new visitor; at the end it must have raised no error and requested no other address."""
    contexts = []
    errors: list[str] = []
    asked: list[str] = []

    def open_page(url: str, **options: Any) -> "Page":
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))] == []


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for a card of 8 GiB that tests share as different visitors."""
    with serving(tmp_path_factory.mktemp("ui"), cold=True) as running:
        yield running
