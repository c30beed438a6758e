"""Pictures of the page with a song made: python -m tests.browser.screenshots FOLDER [LANGUAGE].

Without a language these are the two of the README; with one, every tab in each width and scheme of colours.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import CHROMIUM
from tests.browser.serving import serving
from tests.browser.studio import Studio

WIDTHS = {"desktop": 1280, "phone": 390}
TABS = ("song", "settings")


def of_the_readme(folder: Path) -> None:
    """`ui.png` and `ui-settings.png`."""
    with _browser() as browser, _address("en") as url:
        page = _with_a_song(browser, url, "desktop", "light")
        for tab, name in enumerate(("ui.png", "ui-settings.png")):
            _show(page, tab)
            page.screenshot(path=folder / name, full_page=True)


def of_everything(folder: Path, language: str) -> None:
    """A picture of each tab for each width and scheme."""
    with _browser() as browser, _address(language) as url:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                page = _with_a_song(browser, url, width, scheme)
                for tab, name in enumerate(TABS):
                    _show(page, tab)
                    page.screenshot(path=folder / f"{language}-{name}-{width}-{scheme}.png", full_page=True)
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


def _with_a_song(browser: Browser, url: str, width: str, scheme: str) -> Page:
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 860}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    studio = Studio(page)
    studio.write("caption", "slow piano and rain, warm tape hiss, a brushed snare")
    studio.write("lyrics", "[verse]\nThe kettle hums, the street is wet\nThe morning has not happened yet")
    studio.tick("think", on=False)
    studio.set("duration", 12)
    studio.generate()
    song = studio.control("song-0")
    song.get_by_text("0:12").wait_for()
    studio.tick("think")
    return page


def _show(page: Page, tab: int) -> None:
    page.get_by_role("tab").nth(tab).click()
    # A click leaves a tooltip or a focus ring behind, and panels are filled after the tab is shown.
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)


if __name__ == "__main__":
    target, *languages = sys.argv[1:]
    Path(target).mkdir(parents=True, exist_ok=True)
    if languages:
        of_everything(Path(target), languages[0])
    else:
        of_the_readme(Path(target))
