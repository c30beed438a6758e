"""Where a larger card gets less of something than the tier below: what it is, and what that buys. Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from acestep.budgets import System
from acestep.evidence import short_digest
from acestep.knobs import KNOBS, Offload
from acestep.tiers import BATCHES, Tier, Trade, lm_rank


def trades(tiers: Sequence[Tier], system: System) -> Iterator[Trade]:
    """Yield a sentence for each tier that gives less of something than the one before it."""
    for below, tier in pairwise(tiers):
        if losses := [*_losses(below, tier)]:
            bought = _listed([*_gains(below, tier)]) or _none(tier)
            yield Trade(system=system, tier=tier.id, sentence=f"{tier.id} has {_listed(losses)}; this buys {bought}.")


def _losses(below: Tier, tier: Tier) -> Iterator[str]:
    if gone := [model for model in below.lm_models if model not in tier.lm_models]:
        yield f"no {_listed(gone)} ({below.id} offers it)"
    if lm_rank(tier.recommended_lm) < lm_rank(below.recommended_lm):
        yield f"{tier.recommended_lm or 'no language model'} recommended ({below.id}: {below.recommended_lm})"
    if _more_offload(below, tier):
        yield f"offload {tier.offload} ({below.id}: {below.offload})"
    if _rounds_more(below, tier):
        yield f"{tier.quantization} weights ({below.id}: {below.quantization or 'exact'})"
    for batch, lm in _reached(tier, below):
        here, there = (row.frontier.longest(batch, lm=lm) for row in (tier, below))
        with_lm = " with a language model" if lm else ""
        yield f"{here} s of {_songs(batch)}{with_lm} ({below.id}: {there} s)"


def _gains(below: Tier, tier: Tier) -> Iterator[str]:
    if _more_offload(tier, below):
        whole = tier.offload is Offload.NONE
        yield "a card that keeps every model" if whole else f"offload {tier.offload} instead of {below.offload}"
    if _rounds_more(tier, below):
        yield f"{tier.quantization or 'exact'} weights instead of {below.quantization}"
    if below.lm_quantization is not None and tier.lm_quantization is None and tier.own_lm_models:
        yield f"a language model in exact weights instead of {below.lm_quantization}"
    if lm_rank(tier.recommended_lm) > lm_rank(below.recommended_lm):
        yield f"{tier.recommended_lm} recommended instead of {below.recommended_lm or 'none'}"
    if next(_reached(below, tier), None):
        yield "longer songs or larger batches"


def _more_offload(below: Tier, tier: Tier) -> bool:
    rank = KNOBS["offload"].rank
    return rank(tier.offload) > rank(below.offload)


def _rounds_more(below: Tier, tier: Tier) -> bool:
    rank = KNOBS["quantization"].rank
    return rank(tier.quantization) > rank(below.quantization)


def _reached(less: Tier, more: Tier) -> Iterator[tuple[int, bool]]:
    """Yield the batches, with or without a language model, of which `less` makes shorter songs than `more`."""
    for lm in (False, True):
        for batch in BATCHES:
            if less.frontier.longest(batch, lm=lm) < more.frontier.longest(batch, lm=lm):
                yield batch, lm


def _none(tier: Tier) -> str:
    """The end of the sentence where nothing is bought: a record of a card shows less than a smaller card has."""
    return f"nothing: the record {short_digest(tier.evidence['frontier'].record)} shows no more"


def _songs(batch: int) -> str:
    return "one song" if batch == 1 else f"{batch} songs"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
