"""Every language says the same in words of its own: no number, no text left out and none left over."""

import re
from pathlib import Path

import msgspec
import pytest

from acestep.budgets import System
from acestep.knobs import Offload, Variant
from acestep.locale_text import LANGUAGES
from acestep.tiers import Tier
from acestep.units import MIB
from calibrate.report import render as render_module
from calibrate.report import words as words_module
from calibrate.report.render import Sources, guide_page
from calibrate.report.words import GuideText, words_of
from calibrate.table.merge import build_table
from calibrate.table.policy import Margin, SizeTerm
from tests.fakes import Hungry, measured
from tests.guide_pages import DRAWN, EVERY, LM, NAMES, PLAIN, tiers_of
from tests.guides import reaching, simulated, with_table, with_tiers
from tests.timed_table import timed


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


def code_spans(text: str) -> list[str]:
    return sorted(re.findall(r"`[^`]*`", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys_placeholders_code_and_links(language: str) -> None:
    english, texts = words_of("en").texts, words_of(language).texts
    assert list(texts) == list(english)
    for key, text in texts.items():
        assert placeholders(text) == placeholders(english[key]), key
        assert code_spans(text) == code_spans(english[key]), key
        assert re.findall(r"\]\(([^)]*)\)", text) == re.findall(r"\]\(([^)]*)\)", english[key]), key
        assert text.strip() or key == "list_comma"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_number_is_written_in_a_locale_file(language: str) -> None:
    for key, text in words_of(language).texts.items():
        bare = re.sub(r"\{\w+\}", "", NAMES.sub("", text))
        assert not re.search(r"\d", bare), f"{key}: {text}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_last_resort_on_small_cards_is_the_most_frugal_offload(language: str) -> None:
    assert f"`--offload {list(Offload)[-1]}`" in words_of(language).texts["tip_smallest"]


def test_languages_are_not_copies_of_each_other() -> None:
    english = words_of("en").texts
    for language in LANGUAGES[1:]:
        same = [key for key, text in words_of(language).texts.items() if text == english[key] and len(text) > 12]
        assert same == []


def test_every_text_is_on_some_page(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()

    class Recording(GuideText):
        def __call__(self, key: str, /, **values: object) -> str:
            used.add(key)
            return super().__call__(key, **values)

    recorded = Recording("en")
    monkeypatch.setattr(render_module, "words_of", lambda language: recorded)
    for source in (
        *EVERY.values(),
        _by_system(PLAIN),
        _shorter_with_lm_on_windows(LM),
        with_table(PLAIN, with_tiers(PLAIN.table, *tiers_of(PLAIN), variant=Variant.XL_TURBO)),
        with_table(PLAIN, with_tiers(PLAIN.table, *map(_short_songs, tiers_of(PLAIN)))),
        with_table(PLAIN, timed(PLAIN.table)[0]),
    ):
        guide_page(source, recorded, DRAWN)
    assert set(recorded.texts) - used == set()


def _by_system(source: Sources) -> Sources:
    """Pages of a table with promises of Windows, and of a policy with margins and contexts of two sizes."""
    table = build_table([simulated(), measured(Hungry(700 * MIB), system=System.WINDOWS)], source.policy)
    margin = Margin(share=0.05, at_least_mib=64, why="What a promise leaves.")
    first, *others = source.policy.tiers
    context = SizeTerm(by_size=((8, 0.15), (24, 0.65)), why="What contexts take.")
    policy = msgspec.structs.replace(
        source.policy,
        budget=msgspec.structs.replace(source.policy.budget, context=context),
        margin=margin,
        tiers=(msgspec.structs.replace(first, margin=msgspec.structs.replace(margin, share=0.1)), *others),
    )
    return msgspec.structs.replace(source, table=table, policy=policy)


def _shorter_with_lm_on_windows(source: Sources) -> Sources:
    turbo, tier = source.table.variants[Variant.TURBO], tiers_of(source)[-1]
    frontier = msgspec.structs.replace(tier.frontier, with_lm={"1": 480, "2": 480, "4": 0, "8": 0})
    own = msgspec.structs.replace(tier, frontier=frontier)
    variants = source.table.variants | {Variant.TURBO: msgspec.structs.replace(turbo, windows=(own,))}
    return with_table(source, msgspec.structs.replace(source.table, variants=variants))


def _short_songs(tier: Tier) -> Tier:
    return reaching(tier, {"1": 45, "2": 45, "4": 0, "8": 0})


def test_the_locale_files_and_templates_are_inside_the_package() -> None:
    folder = Path(words_module.__file__).parent
    assert {path.stem for path in (folder / "locales").glob("*.json")} == set(LANGUAGES)
    assert (folder / "templates" / "guide.md.j2").is_file()
