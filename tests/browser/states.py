"""The page in each of its states, one after another, for tests and pictures of all of them."""

from collections.abc import Iterator

from acestep.ui.words import PageText
from tests.browser.studio import Studio, wait_until

CAPTION = "slow piano and rain, warm tape hiss, a brushed snare"
LYRICS = "[verse]\nThe kettle hums, the street is wet\nThe morning has not happened yet"


def states(studio: Studio, language: str = "en") -> Iterator[str]:
    """Bring a page that was just opened to one state after another, and yield the name of each once it is there."""
    words = PageText(language)
    yield "empty"
    studio.generate()
    studio.page.locator("#failure .failure").wait_for()
    studio.wait_until_ready()
    yield "failed"
    studio.turn_to(0)
    studio.choose("task", words("choice_repaint"))
    studio.control("repaint-strength").wait_for()
    yield "form"
    studio.choose("task", words("choice_text2music"))
    studio.write("caption", CAPTION)
    studio.write("lyrics", LYRICS)
    studio.tick("think", on=False)
    studio.set("duration", 300)
    studio.set("steps", 100)
    studio.generate()
    wait_until(lambda: words("stage_denoise") in studio.text("progress"))
    yield "running"
    studio.control("cancel").click()
    studio.wait_until_ready()
    studio.set("duration", 12)
    studio.set("batch", 2)
    studio.set("steps", 4)
    studio.generate()
    studio.wait_for_song()
    studio.wait_until_ready()
    yield "done"
    studio.turn_to(1)
    studio.page.locator("#card-panel summary").click()
    studio.control("guard-panel").locator("table").wait_for()
    yield "settings"
