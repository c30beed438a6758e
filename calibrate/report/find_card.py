"""Cards that people own, with their tier and what they may do with the default variant, in one language. Pure."""

from collections.abc import Iterator
from typing import Final

from acestep.budgets import System
from acestep.hardware.card import Card, CardKind
from acestep.limits.capabilities import computes_in_float32
from acestep.limits.fallbacks import moves_weights
from acestep.limits.plan import Plan, resolve
from acestep.limits.song_time import cards_of, is_own_card, times_of
from acestep.song_times import LENGTHS_S, song_seconds
from acestep.tiers import TierTable
from calibrate.report.guide_times import time_range
from calibrate.report.marks import marked, source_mark
from calibrate.report.real_cards import RealCard, real_cards
from calibrate.report.tier_rows import DASH, Rows, models_text, steps_text
from calibrate.report.words import GuideText, on_one_line

_GROUPS: Final = (
    *("GeForce RTX 50", "GeForce RTX 40", "GeForce RTX 30", "GeForce RTX 20, GTX 10 and 16"),
    *("AMD Radeon", "Shares the main memory"),
)
"""Headings of `real_cards` whose cards are shown."""

_MORE: Final = frozenset(
    {
        *("Arc A380 6 GB", "Arc A750 8 GB", "Arc A770 16 GB", "Arc B570 10 GB", "Arc B580 12 GB"),
        *("T4 16 GB", "L4 24 GB", "A10G 24 GB", "A100 40 GB", "H100 80 GB"),
    }
)
"""Cards of other headings that are common, or that clouds lend."""

_RARE: Final = frozenset(
    {
        *("RTX 5070 8 GB", "RTX 5070 Ti 12 GB", "RTX 5090 24 GB", "RTX 4080 12 GB", "RTX 4090 16 GB", "RTX 4090 48 GB"),
        *("RTX 3080 8 GB", "RTX 3080 16 GB", "RTX 3080 Ti 16 GB", "RTX 3060 6 GB", "RTX 3050 Ti 4 GB"),
        *("RTX 2080 Ti 22 GB", "GTX 1660 Ti 6 GB", "GTX 1060 3 GB", "RTX 3090 Ti 24 GB"),
        *("Radeon RX 7700 XT 12 GB", "Radeon RX 7600 XT 16 GB", "Radeon RX 9070 16 GB", "Radeon RX 6800 XT 16 GB"),
        *("Apple M, 24 GB", "Apple M, 48 GB", "Apple M, 96 GB", "Apple M, 128 GB"),
    }
)
"""Sizes that are rare, or sold in laptops only: the explorer has them."""


def shown_cards() -> list[RealCard]:
    """Return the cards of the table, about sixty."""
    return [real for real in real_cards() if (real.group in _GROUPS and real.label not in _RARE) or real.label in _MORE]


def card_rows(words: GuideText, table: TierTable) -> Rows:
    """Return a row for each card: its tier, its language models, how long songs may be, and what is special."""
    length = words.duration(LENGTHS_S[-1])
    columns = ("card", "tier", "lm", "songs", "card_time", "notes")
    heading = tuple(words(f"col_{column}", duration=length) for column in columns)
    linux, windows = (table.on(system) for system in System)
    return [heading, *(_row(words, real, resolve(real.card, linux), linux, windows) for real in shown_cards())]


def _row(words: GuideText, real: RealCard, plan: Plan, linux: TierTable, windows: TierTable) -> tuple[str, ...]:
    tier = next(tier for tier in windows.variants[plan.variant].tiers if tier.id == plan.tier)
    return (
        on_one_line(real.label),
        words.tier(tier),
        on_one_line(models_text(words, plan.lm_models, plan.lm)),
        marked(steps_text(words, plan.frontier.without_lm), source_mark(plan.evidence.get("frontier"))),
        _time(words, plan, linux),
        words.listed(_notes(words, real.card, plan, windows)),
    )


def _time(words: GuideText, plan: Plan, table: TierTable) -> str:
    """How long a song takes on the card, planned by its language model and not; a dash where that is not known."""
    tier = times_of(plan, table.variants[plan.variant].times)
    card = next((card for card in cards_of(plan, tier) if is_own_card(plan, card)), None)
    if card is None or plan.card.kind is not CardKind.CUDA:
        return DASH
    ways = [(plan.lm, plan.backend), (None, plan.backend)] if plan.init_lm else [(None, plan.backend)]
    found = [song_seconds(card, LENGTHS_S[-1], *way) for way in ways]
    return " / ".join(time_range(seconds, words) for seconds in found)


def _notes(words: GuideText, card: Card, plan: Plan, windows: TierTable) -> Iterator[str]:
    if computes_in_float32(card):
        yield words("card_before_ampere")
    if card.unified or not moves_weights(card):
        yield words("card_unified")
    if card.kind is not CardKind.CUDA:
        yield words("card_other_maker")
        return
    there = resolve(card, windows)
    here, elsewhere = (steps_text(words, one.frontier.without_lm) for one in (plan, there))
    if here != elsewhere:
        yield words("card_windows", limits=elsewhere)
