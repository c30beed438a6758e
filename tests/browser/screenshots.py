"""Pictures of the page: python -m tests.browser.screenshots FOLDER [LANGUAGE...].

Without a language these are the two of the README; with languages, every state in each width and scheme of colours.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import CHROMIUM
from tests.browser.serving import serving
from tests.browser.states import states
from tests.browser.studio import Studio

WIDTHS = {"desktop": 1280, "phone": 390}
HEIGHT = 1000
OF_README = {"done": "ui.png", "settings": "ui-settings.png"}
"""The pictures of the README, by their states."""


def of_the_readme(folder: Path) -> None:
    """`ui.png` and `ui-settings.png`."""
    with _browser() as browser, _address("en") as url:
        page = _opened(browser, url, "desktop", "en")
        for state in states(Studio(page)):
            if state in OF_README:
                page.evaluate("() => window.scrollTo(0, 0)")
                _take(page, folder / OF_README[state], whole=False)


def of_everything(folder: Path, language: str) -> None:
    """A picture of each state for each width and scheme."""
    with _browser() as browser, _address(language) as url:
        for width in WIDTHS:
            page = _opened(browser, url, width, language)
            for state in states(Studio(page), language):
                for scheme in ("light", "dark"):
                    page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", scheme == "dark")
                    _take(page, folder / f"{language}-{state}-{width}-{scheme}.png")
                page.evaluate("() => document.body.classList.remove('dark')")
            page.context.close()


@contextmanager
def _browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


@contextmanager
def _address(language: str) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home), "--language", language, vram=8, cold=True) as server,
    ):
        yield server.url


def _opened(browser: Browser, url: str, width: str, language: str) -> Page:
    size = {"width": WIDTHS[width], "height": HEIGHT}
    context = browser.new_context(viewport=size, color_scheme="light", locale=language)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    return page


def _take(page: Page, path: Path, *, whole: bool = True) -> None:
    # A click leaves a tooltip or a focus ring behind, and panels are filled after the tab is shown.
    page.mouse.move(0, 0)
    page.wait_for_timeout(700)
    page.screenshot(path=path, full_page=whole)


if __name__ == "__main__":
    target, *languages = sys.argv[1:]
    Path(target).mkdir(parents=True, exist_ok=True)
    for one in languages:
        of_everything(Path(target), one)
    if not languages:
        of_the_readme(Path(target))
