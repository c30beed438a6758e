"""Pages of the guide to look at: without a language model, with some, and of a card that was measured."""

import re

from acestep.knobs import Variant
from acestep.tiers import Tier
from calibrate.report.render import Sources, guide_page
from calibrate.report.words import words_of
from tests.guides import on_a_card, simulated, sources, thinking

PLAIN = sources(simulated())
LM = thinking(PLAIN)
REAL = thinking(sources(simulated(), on_a_card()))
EVERY = {"plain": PLAIN, "thinking": LM, "measured": REAL}

DRAWN = frozenset(f"{kind}-{v}.svg" for kind in ("vram", "stages", "agreement") for v in ("turbo", "xl-turbo"))

NAMES = re.compile(r"ACE-Step 1\.5|INT8|5 Hz|bfloat16")
"""The only digits that stand in a locale file; every other number is put in from the table."""


def page(source: Sources, language: str) -> str:
    return guide_page(source, words_of(language), DRAWN)


def tiers_of(source: Sources) -> tuple[Tier, ...]:
    return source.table.variants[Variant.TURBO].tiers
