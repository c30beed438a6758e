"""The explorer answers in Chromium what `acestep` and the VRAM guard answer, and reads well without a network."""

import json
import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from acestep.locale_text import LANGUAGES
from acestep.song_times import FASTEST, SLOWEST
from acestep.tiers import load_tiers
from acestep.ui.words import PageText
from acestep.units import duration_range
from calibrate.report.explorer.page import explorer_page
from calibrate.report.explorer.words import ExplorerText
from tests.browser.conftest import VIEWPORT
from tests.explorer_questions import answered, random_questions
from tests.guide_pages import LM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

QUESTIONS = {"in force": 500, "with short songs": 150}
"""Random questions about each of the tables."""

TABLES = {"in force": load_tiers(), "with short songs": LM.table}

ANSWERS = """questions => {
  const wish = (value, none) => (value === "auto" ? undefined : value === "none" ? none : value);
  return questions.map((asked) => answer({
    ...asked,
    card: asked.place === null ? cardOfSize(asked.size) : NUMBERS.cards[asked.place],
    wishes: {
      lm: wish(asked.lm, null), offload: wish(asked.offload, "none"), quantization: wish(asked.quantization, null),
    },
  }));
}"""


TRANSLATED = """([languages, sentences]) => Object.fromEntries(languages.map((spoken) => {
  language = spoken;
  return [spoken, sentences.map((english) => translated(english))];
}))"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(explorer_page(load_tiers()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(chromium: "Browser") -> "Iterator[tuple[Page, list[str]]]":
    """A tab without a network for one test after the other, and the errors of its pages so far."""
    context = chromium.new_context(offline=True)
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page, errors
    context.close()


@pytest.fixture
def explorer(tab: "tuple[Page, list[str]]", file: Path) -> "Iterator[Page]":
    """The page, opened from a file without a network."""
    page, errors = tab
    errors.clear()
    # From its own address with other choices the page would not be loaded again.
    page.goto("about:blank")
    page.goto(file.as_uri())
    yield page
    assert errors == []


@pytest.mark.parametrize("name", TABLES)
def test_random_questions_are_answered_as_acestep_and_the_guard_answer_them(
    name: str, explorer: "Page", tmp_path: Path
) -> None:
    table = TABLES[name]
    other = tmp_path / "explorer.html"
    other.write_text(explorer_page(table), encoding="utf-8")
    explorer.goto(other.as_uri())
    count = QUESTIONS[name]
    questions = random_questions(count, 22, table)
    found = explorer.evaluate(ANSWERS, [msgspec.to_builtins(question) for question in questions])
    refused = 0
    for question, given in zip(questions, found, strict=True):
        expected = json.loads(json.dumps(answered(question, table)))
        shown = {**given, "plan": {name: given["plan"][name] for name in expected["plan"]}}
        assert shown == expected, question
        refused += bool(expected["plan"]["warnings"] or expected["cuts"])
    assert count / 5 < refused < count
    # And each sentence is translated as the program translates it.
    sentences = sorted({said for given in found for said in (*given["plan"]["warnings"], *given["cuts"])})
    for language, said in explorer.evaluate(TRANSLATED, [LANGUAGES, sentences]).items():
        assert said == [PageText(language).sentence(english) for english in sentences]
        assert language == "en" or not set(said) & set(sentences)
    assert (sum(given["song_seconds"] is not None for given in found) > 5) is any(
        t.times for t in table.variants.values()
    )


@pytest.mark.parametrize(("wanted", "spoken"), [("ko-KR", "ko"), ("ja", "ja"), ("zh-CN", "zh"), ("fr-FR", "en")])
def test_the_page_is_in_the_language_of_the_browser_until_another_is_chosen(
    wanted: str, spoken: str, chromium: "Browser", file: Path
) -> None:
    context = chromium.new_context(offline=True, locale=wanted)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.lang") == spoken
    # Every language, by one browser: what is chosen does not depend on what it began with.
    for language in dict.fromkeys((spoken, *reversed(LANGUAGES))) if spoken == "ko" else (spoken, "en"):
        page.locator("#language").select_option(language)
        words = ExplorerText(language)
        assert page.evaluate("document.documentElement.lang") == language
        assert page.title() == words("title")
        assert page.locator("#verdict-word").inner_text() in {words(word) for word in ("fits", "changed")}
        text = page.locator("body").inner_text()
        assert re.findall(r"\{\w*\}|undefined|\bnull\b", text) == []
        if language != "en":
            # The languages have their own names.
            own, english = words.texts.items(), ExplorerText("en").texts
            left = {english[key] for key, said in own if said != english[key] and key != "name"}
            assert left & {line.strip() for line in text.splitlines()} == set()
        # A link keeps the language.
        assert f"language={language}" in page.url
    context.close()


def choose(page: "Page", **values: str) -> None:
    for name, value in values.items():
        control = page.locator(f"#{name}")
        if control.evaluate("node => node.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)


def test_a_visitor_chooses_a_card_and_reads_whether_it_fits(explorer: "Page") -> None:
    choose(explorer, card="RTX 4060 8 GB", lm="none", duration="240", batch="2")
    assert explorer.locator("#verdict-word").inner_text() == "It fits"
    assert "2 songs of 4 min with turbo, without a language model" in explorer.locator("#verdict-said").inner_text()
    assert explorer.locator(".stage").count() == 3
    explorer.locator("#more summary").click()
    choose(explorer, card="RTX 3050 4 GB", offload="none", quantization="none", batch="8", duration="600")
    assert explorer.locator("#verdict-word").inner_text() == "Not as asked"
    assert "Offload none" in explorer.locator("#reasons").inner_text()
    commands = explorer.locator("#commands").inner_text()
    assert "--offload none --quantization none" in commands
    assert "--duration 600 --batch 8" in commands


def test_a_time_is_shown_as_a_range_where_the_card_s_speed_is_known(explorer: "Page") -> None:
    for seconds in (0.4, 2.96, 7.25, 31.0, 100.0, 700.0):
        least, most = explorer.evaluate("(seconds) => timeRange(seconds).map(duration)", seconds)
        assert f"{least} to {most}" == duration_range(FASTEST * seconds, SLOWEST * seconds)
    choose(explorer, card="RTX 4060 8 GB", variant="turbo")
    assert "One song takes" in explorer.locator("#settings").inner_text()
    choose(explorer, card="A16 16 GB")
    assert "One song takes" not in explorer.locator("#settings").inner_text()


def test_a_size_that_no_card_has_is_refused_with_the_sizes_that_are_allowed(explorer: "Page") -> None:
    choose(explorer, card="size")
    for size in ("", "0", "-3", "513"):
        choose(explorer, size="8")
        assert explorer.locator("#answer").is_visible()
        choose(explorer, size=size)
        assert "from 1 to 512" in explorer.locator("#verdict-said").inner_text()
        assert not explorer.locator("#answer").is_visible()


def test_the_address_keeps_the_choices(explorer: "Page", file: Path) -> None:
    choose(explorer, card="T4 16 GB", variant="xl-turbo", duration="300")
    address = explorer.evaluate("location.href")
    before = explorer.locator("#answer").inner_text()
    explorer.goto("about:blank")
    explorer.goto(address)
    assert explorer.locator("#answer").inner_text() == before
    assert explorer.locator("#card").input_value() == "T4 16 GB"


CLIPBOARD = """refuses => {
  const writeText = async (said) => { if (refuses) throw new Error("refused"); window.copied = said; };
  Object.defineProperty(navigator, "clipboard", { configurable: true, value: { writeText } });
}"""


def test_the_commands_are_copied_or_selected_where_the_clipboard_is_refused(explorer: "Page") -> None:
    words, commands = ExplorerText("en"), explorer.locator("#commands").inner_text()
    for refuses, said in ((False, "copied"), (True, "selected")):
        explorer.evaluate(CLIPBOARD, refuses)
        explorer.locator("#copy").click()
        explorer.get_by_role("button", name=words(said), exact=True).wait_for()
    assert explorer.evaluate("[window.copied, String(getSelection())]") == [commands, commands]


def test_every_control_is_reached_by_keyboard_and_has_a_name(explorer: "Page") -> None:
    explorer.locator("#more summary").click()
    explorer.locator("h1").click()
    reached = set()
    for _ in range(20):
        explorer.keyboard.press("Tab")
        reached.add(explorer.evaluate("document.activeElement.id || document.activeElement.name"))
    controls = {"card", "system", "variant", "lm", "duration", "batch", "offload", "quantization", "copy"}
    assert controls <= reached
    unnamed = explorer.evaluate(
        "() => [...document.querySelectorAll('select, input')].filter(c => !c.labels.length).map(c => c.id)"
    )
    assert unnamed == []


CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts(colour).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour) && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter(
    (node) => node.checkVisibility() && [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim()),
  );
  return texts.map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => x - y);
    return [(b + 0.05) / (a + 0.05), node.textContent.slice(0, 40)];
  });
}"""


def test_texts_have_the_contrast_of_level_aa_and_nothing_is_wider_than_the_page(explorer: "Page", file: Path) -> None:
    found: dict[str, Any] = {}
    for card in ("RTX 3060 12 GB", "RTX 2060 6 GB", "Apple M, 8 GB", "size"):
        explorer.goto("about:blank")
        explorer.goto(f"{file.as_uri()}#card={card}&size=2&variant=xl-turbo&lm=4B&offload=none")
        for width, scheme in product((360, 1280), ("light", "dark")):
            explorer.set_viewport_size({"width": width, "height": 800})
            explorer.emulate_media(color_scheme=scheme)
            weak = [contrast for contrast in explorer.evaluate(CONTRASTS) if contrast[0] < 4.5]
            needed = explorer.evaluate("document.documentElement.scrollWidth")
            found[f"{card}, {scheme}, {width}"] = (weak, max(0, needed - width))
    explorer.set_viewport_size(VIEWPORT)
    explorer.emulate_media(color_scheme="no-preference")
    assert {where: wrong for where, wrong in found.items() if wrong != ([], 0)} == {}
    assert len(found) == 16
