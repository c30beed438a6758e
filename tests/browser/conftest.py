"""Chromium, and servers for it to visit. Without a Chromium each test is skipped, with the reason, and counted."""

import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.serving import Server, nursery, serving
from tests.browser.studio import RECORD_PLAYERS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request, ViewportSize

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LACKING = [
    *([] if CHROMIUM else ["Chromium is not installed here (Debian: apt-get install chromium)"]),
    *([] if find_spec("playwright") else ["playwright is not installed here (pip install playwright)"]),
]

VIEWPORT: "ViewportSize" = {"width": 1280, "height": 720}
"""The size of a browser's window; tests may change it."""

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


@pytest.fixture(scope="session")
def tabs(chromium: "Browser") -> Iterator[Callable[[str, int], "Page"]]:
    """Tabs of a browser by their language and number, each for one visitor after the other.

    A new one compiles all scripts of the page again, which takes seconds.
    """
    opened: dict[tuple[str, int], Page] = {}

    def tab(locale: str, number: int) -> "Page":
        if (locale, number) not in opened:
            opened[locale, number] = chromium.new_context(locale=locale, viewport=VIEWPORT).new_page()
            opened[locale, number].add_init_script(RECORD_PLAYERS)
        return opened[locale, number]

    yield tab
    for page in opened.values():
        page.context.close()


@pytest.fixture
def visit(chromium: "Browser", tabs: Callable[[str, int], "Page"]) -> Iterator[Visit]:
    """Opens a page as a new visitor; at the end it must have raised no error and requested no other address.

    Each visitor of a test gets another one of the shared tabs of its language, unless it is to be in a `new_tab`.
    """
    shared: list[Page] = []
    opened: list[Page] = []
    errors: list[str] = []
    asked: list[str] = []
    visitors: Counter[str] = Counter()

    def failed(error: Exception) -> None:
        errors.append(f"{error} {error.stack}")

    def requested(request: "Request") -> None:
        asked.append(request.url)

    def open_page(url: str, *, new_tab: bool = False, locale: str = "en") -> "Page":
        if new_tab:
            page = chromium.new_context(locale=locale, viewport=VIEWPORT).new_page()
        else:
            page = tabs(locale, visitors[locale])
            visitors[locale] += 1
            shared.append(page)
        opened.append(page)
        page.on("pageerror", failed)
        page.on("request", requested)
        page.goto(url)
        return page

    yield open_page
    for page in opened:
        if page not in shared:
            page.context.close()
            continue
        page.remove_listener("pageerror", failed)
        page.remove_listener("request", requested)
        page.unroute_all()
        page.set_viewport_size(VIEWPORT)
        page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        page.goto("about:blank")
        page.context.clear_cookies()
        page.context.clear_permissions()
    assert errors == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))] == []


@pytest.fixture(scope="session")
def port() -> str:
    """A port for one server after the other: what the shared tab has compiled, it knows by its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for a card of 8 GiB that tests share as different visitors."""
    # The other core prepares the servers of later tests meanwhile.
    nursery()
    with serving(tmp_path_factory.mktemp("ui"), cold=True) as running:
        yield running
