"""The pictures of the README, taken from the running UI: python -m tests.browser.screenshots FOLDER."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import CHROMIUM
from tests.browser.serving import serving
from tests.browser.studio import Studio

VIEWS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


def take(folder: Path, *, language: str = "en") -> None:
    """A picture of each tab for each width and scheme of colours, a song made first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home), "--language", language, vram=8) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for view, size in VIEWS.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
                page.goto(server.url)
                _with_a_song(page)
                for number, tab in enumerate(page.get_by_role("tab").all()):
                    tab.click()
                    page.wait_for_timeout(500)
                    page.screenshot(path=folder / f"{language}-{view}-{scheme}-{number}.png", full_page=True)
                page.close()
        browser.close()


def _with_a_song(page: Page) -> None:
    studio = Studio(page)
    studio.write("caption", "slow piano and rain, warm tape hiss, a brushed snare")
    studio.set("duration", 12)
    studio.generate()
    studio.control("song-0").get_by_label("Play", exact=True).wait_for()


if __name__ == "__main__":
    take(Path(sys.argv[1]), language=(sys.argv[2:] or ["en"])[0])
