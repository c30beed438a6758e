"""The page speaks the languages it says it does, on a phone too."""

import re
from typing import TYPE_CHECKING

import pytest

from acestep.language_names import OWN_NAMES
from acestep.ui.words import PageText
from tests.browser.conftest import Visit
from tests.browser.serving import Server
from tests.browser.studio import Studio, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

PHONE: "ViewportSize" = {"width": 390, "height": 844}
SCRIPTS = {"ko": "[가-힣]", "ja": "[ぁ-んァ-ヶ一-龠]", "zh": "[一-龠]"}
CONTROLS = (
    ("heading", "caption", "lyrics", "duration", "batch", "seed", "steps", "task", "generate", "cancel"),
    ("tier", "init-lm", "lm", "backend", "offload-cpu", "offload-dit", "quantization", "compile", "card-panel"),
)
"""Blocks with words in them, by tab."""


BUTTONS = ("generate", "plan", "cancel")

LINES = """(name) => {
  const text = document.createRange();
  text.selectNodeContents(document.getElementById(name));
  return new Set([...text.getClientRects()].filter((one) => one.width > 0).map((one) => Math.round(one.top))).size;
}"""
"""How many lines the name of a button takes; 0 where it is not shown."""


@pytest.mark.parametrize("language", SCRIPTS)
def test_every_control_has_a_name_in_the_language_of_the_browser(language: str, server: Server, visit: Visit) -> None:
    page = visit("about:blank", locale=language)
    page.set_viewport_size(PHONE)
    page.goto(server.url)
    studio = Studio(page)
    words, script = PageText(language), re.compile(SCRIPTS[language])
    # gradio's own words may be in a variant of the language, such as zh-CN.
    assert studio.page.evaluate("() => document.documentElement.lang").partition("-")[0] == language
    studio.open_everything()
    # gradio's own words.
    assert script.search(studio.control("source-audio").locator("button").inner_text())
    for tab, names in enumerate(CONTROLS):
        studio.turn_to(tab)
        assert [name for name in names if not script.search(studio.control(name).inner_text())] == []
        text = studio.page.locator("body").inner_text()
        # What a key without a translation looks like: ui.generate, label_caption, {count}, a Python value.
        assert re.findall(r"\b[a-z]+[._][a-z_.]+\b|\{\w*\}|\bNone\b|\bKeyError\b", text) == []
        assert studio.page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
        assert [name for name in BUTTONS if studio.page.evaluate(LINES, name) > 1] == []
    # The program answers in that language too: an empty form, and an example whose lyrics are in it.
    studio.turn_to(0)
    studio.generate()
    studio.page.get_by_role("alert").get_by_text(words("failed_caption")).wait_for()
    studio.control("examples").locator("button").first.click()
    wait_until(lambda: studio.chosen("language") == OWN_NAMES[language])
    wait_until(lambda: script.search(studio.written("lyrics")) is not None)


def test_make_music_stays_in_reach_on_a_phone(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    page.set_viewport_size(PHONE)
    studio = Studio(page)
    for place in (0, 300, 100_000):
        studio.page.evaluate("(y) => window.scrollTo(0, y)", place)
        box = studio.control("generate").bounding_box()
        assert box is not None
        assert 0 < box["y"] < box["y"] + box["height"] <= PHONE["height"]


SEEN = """(name) => {
  const [place, run] = [name, "#run"].map((one) => document.querySelector(one).getBoundingClientRect());
  return place.top >= 0 && place.bottom <= run.top;
}"""
"""Whether a part of the page is on the screen of a phone, above the buttons."""


def test_the_buttons_cover_nothing_on_a_phone_and_what_a_run_gives_comes_into_view(
    server: Server, visit: Visit
) -> None:
    page = visit(server.url)
    page.set_viewport_size(PHONE)
    studio = Studio(page)
    assert not studio.control("notify").is_visible(), "browsers of phones have no such notifications"
    page.evaluate("() => window.scrollTo(0, document.documentElement.scrollHeight)")
    assert page.evaluate(SEEN, "#history")
    page.evaluate("() => window.scrollTo(0, 0)")
    studio.generate()
    page.locator("#failure .failure").wait_for()
    page.wait_for_function(SEEN, arg="#failure")
    studio.wait_until_ready()
    studio.ask(seconds=1, steps=1)
    page.evaluate("() => window.scrollTo(0, 0)")
    assert not page.evaluate(SEEN, "#history")
    studio.generate()
    studio.wait_for_song()
    page.wait_for_function(SEEN, arg="#song-0")
