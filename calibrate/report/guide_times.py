"""The guide's table of how long songs take on cards of each tier. Pure."""

from collections.abc import Sequence

from acestep.song_times import FASTEST, LENGTHS_S, SLOWEST, CardTimes, song_seconds
from acestep.tiers import Tier, VariantTable
from acestep.units import duration_range
from calibrate.report.words import GuideText


def guide_time_rows(table: VariantTable, words: GuideText) -> Sequence[Sequence[str]]:
    """Return a row for each card with a heading above them; empty for a table without times."""
    rows = [
        _row(tier, card, words) for tier in table.tiers if tier.id in table.times for card in table.times[tier.id].cards
    ]
    lengths = [words.duration(seconds) for seconds in LENGTHS_S]
    heading = [words("col_tier"), words("col_card")]
    heading += [words("col_time", duration=length) for length in lengths]
    heading += [words("col_time_lm", duration=length) for length in lengths]
    return [heading, *rows] if rows else []


def tiers_without_times(table: VariantTable, words: GuideText) -> str:
    """Return the tiers of which no card is known, with their sizes, as a phrase; "" if there is none."""
    return words.listed(
        words("tier_sized", tier=words.tier(tier), sizes=words.range(tier.vram_gib))
        for tier in table.tiers
        if tier.id not in table.times
    )


def _row(tier: Tier, card: CardTimes, words: GuideText) -> Sequence[str]:
    lm = tier.recommended_lm
    without = [song_seconds(card, length) for length in LENGTHS_S]
    planned = [song_seconds(card, length, lm, tier.backend) if lm else None for length in LENGTHS_S]
    return (words.tier(tier), card.card, *(time_range(seconds, words) for seconds in (*without, *planned)))


def time_range(seconds: float | None, words: GuideText) -> str:
    """Return the range around a likely time; a dash for one that is not known."""
    if seconds is None:
        return "—"
    return duration_range(
        FASTEST * seconds,
        SLOWEST * seconds,
        words.duration,
        lambda least, most: words("time_range", least=least, most=most),
    )
