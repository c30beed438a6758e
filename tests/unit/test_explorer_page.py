"""The explorer is one small page that needs nothing from elsewhere and computes with the numbers of the table."""

import json
import re

import msgspec
import pytest

from acestep.knobs import Variant
from acestep.locale_text import LANGUAGES
from acestep.tiers import load_tiers
from calibrate.report.explorer.numbers import numbers
from calibrate.report.explorer.page import as_script, explorer_page
from calibrate.report.explorer.words import ExplorerText
from calibrate.report.find_card import shown_cards
from calibrate.report.real_cards import real_cards

LARGEST_BYTES = 300_000


def test_the_page_is_small_and_asks_nothing_of_the_network() -> None:
    text = explorer_page(load_tiers())
    assert len(text.encode()) < LARGEST_BYTES
    assert not re.search(
        r"(?:src|href)\s*=\s*\\?[\"'](?!(?:en|\{guide\})/GPU_COMPATIBILITY.md)|https?://|@import|url\(|import\(|fetch\(",
        text,
    )
    assert "default-src 'none'" in text


def test_the_page_holds_the_numbers_of_the_table_and_changes_with_them() -> None:
    table = load_tiers()
    text = explorer_page(table)
    found = re.search(r"^const NUMBERS = (.*);$", text, re.MULTILINE)
    assert found is not None
    assert json.loads(found[1]) == json.loads(msgspec.json.encode(numbers(table)))
    turbo = table.variants[Variant.TURBO]
    model = {name: value + 1 for name, value in turbo.memory_model.items()}
    changed = table.variants | {Variant.TURBO: msgspec.structs.replace(turbo, memory_model=model)}
    assert explorer_page(msgspec.structs.replace(table, variants=changed)) != text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_s_own_words_are_in_every_language(language: str) -> None:
    english, texts = ExplorerText("en").texts, ExplorerText(language).texts
    assert list(texts) == list(english)
    for key, said in texts.items():
        assert sorted(re.findall(r"\{\w+\}|<[^>]*>", said)) == sorted(re.findall(r"\{\w+\}|<[^>]*>", english[key])), key


def test_no_text_in_the_numbers_ends_the_script() -> None:
    hostile = {"name": "</script><script>alert(1)</script>"}
    assert "<" not in as_script(hostile)
    assert json.loads(as_script(hostile)) == hostile


def test_every_card_has_its_own_label_and_the_size_that_the_label_says() -> None:
    cards = real_cards()
    assert len({real.label for real in cards}) == len(cards)
    for real in cards:
        if not real.card.unified:
            assert real.label == f"{real.card.name} {real.card.nameplate_gib:g} GB"


def test_the_guide_shows_about_sixty_of_the_cards() -> None:
    assert 55 <= len(shown_cards()) <= 70
