"""The page's sentences: the same in every language it speaks, and none that is missing."""

import re
import string
from pathlib import Path

import pytest

from acestep.locale_text import LANGUAGES
from acestep.serving.failures import FailureKind
from acestep.stage import Stage
from acestep.ui.words import LOCALES, PageText

HOUSE = Path(__file__).parents[2] / "acestep" / "ui"
STAGES = tuple(Stage)


def gaps(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_every_locale_is_a_language_that_can_be_chosen() -> None:
    assert {path.stem for path in LOCALES.glob("*.json")} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_things_with_the_same_gaps(language: str) -> None:
    english, other = PageText("en").texts, PageText(language).texts
    assert list(other) == list(english)
    assert {name: gaps(text) for name, text in other.items()} == {name: gaps(text) for name, text in english.items()}
    assert all(text.strip() for text in other.values())


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_no_sentence_was_left_in_english(language: str) -> None:
    words = {name: text for name, text in PageText(language).texts.items() if len(PageText("en").texts[name]) > 14}
    same = [name for name, text in words.items() if text == PageText("en").texts[name]]
    assert same == []


def test_every_sentence_that_the_page_asks_for_is_there() -> None:
    asked = {
        name
        for path in HOUSE.glob("*.py")
        for name in re.findall(r'words\(\s*"([a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    own = ("waiting", "loading", "stopping", "finished", "stopped", "failed")
    asked |= {f"stage_{stage}" for stage in (*STAGES, *own)}
    asked |= {f"failed_{kind}" for kind in FailureKind}
    assert len(asked) > 40
    assert asked <= set(PageText("en").texts)


def test_a_gap_is_filled_in_any_language() -> None:
    assert {PageText(language)("batch_info", most=7) for language in LANGUAGES} == {
        PageText(language).texts["batch_info"].replace("{most}", "7") for language in LANGUAGES
    }
