"""What a tier promises otherwise on Windows, in one language. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from acestep.knobs import Variant
from acestep.tiers import Tier, TierTable
from calibrate.report.tier_rows import Rows, models_text, steps_text
from calibrate.report.words import GuideText


def windows_rows(words: GuideText, table: TierTable) -> Rows:
    """Return a row for each tier with promises of its own on Windows: what differs, on both; empty without one.

    Variants of which the same differs share a row.
    """
    shared: dict[tuple[str, ...], list[Variant]] = {}
    for variant, found in table.variants.items():
        for tier, own in ((tier, own) for tier in found.tiers for own in found.windows if own.id == tier.id):
            if differing := list(_differing(words, tier, own)):
                sides = ("<br>".join(side) for side in zip(*differing, strict=True))
                shared.setdefault((words.tier(tier), *sides), []).append(variant)
    order = {variant: place for place, variant in enumerate(table.variants)}
    cells = [
        (words.listed(f"`{variant}`" for variant in variants), *said)
        for said, variants in sorted(shared.items(), key=lambda row: order[row[1][0]])
    ]
    return [(words("col_variant"), words("col_tier"), "Linux", "Windows"), *cells] if cells else []


def _differing(words: GuideText, tier: Tier, own: Tier) -> Iterator[tuple[str, str]]:
    here, there = (list(_said(words, row)) for row in (tier, own))
    return (pair for pair in zip(here, there, strict=True) if pair[0] != pair[1])


def _said(words: GuideText, tier: Tier) -> Iterator[str]:
    """Yield what users see of a tier, always the same things in the same order."""
    for show in _SHOWN:
        yield show(words, tier)


def _songs(words: GuideText, tier: Tier) -> str:
    without, planned = (steps_text(words, tier.frontier.of(lm=lm)) for lm in (False, True))
    return without if without == planned else words("without_and_with", without=without, planned=planned)


def _passes(words: GuideText, passes: Mapping[str, int]) -> str:
    return words.listed(words("passes_of", model=model, n=songs) for model, songs in passes.items())


_SHOWN: Final[tuple[Callable[[GuideText, Tier], str], ...]] = (
    _songs,
    lambda words, tier: f"{words('col_offload_alone')} `{tier.offload}`",
    lambda words, tier: tier.quantization.upper() if tier.quantization else words("tip_exact"),
    lambda words, tier: f"LM {models_text(words, tier.lm_models, tier.recommended_lm)}",
    lambda words, tier: f"LM {tier.lm_quantization.upper() if tier.lm_quantization else words('tip_exact')}",
    lambda words, tier: _passes(words, tier.lm_songs_per_pass),
)
