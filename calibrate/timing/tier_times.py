"""Writes into a table how long songs take on cards of each tier: what their plans run, at their speeds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from acestep.budgets import System
from acestep.knobs import Backend, Knobs, Offload, Quantization, Variant
from acestep.limits.plan import Overrides, Plan, resolve
from acestep.song_times import LENGTHS_S, BothLengths, CardTimes, OtherWay, ThinkTime, TierTimes
from acestep.stage import Stage
from acestep.tiers import Tier, TierTable, VariantTable
from calibrate.timing.cards import CardSpeed, CardUse
from calibrate.timing.song import SongWork, WholeSong, song_work, thinking_seconds
from calibrate.timing.tier_cards import made_from, planned_for, sold_in, times_evidence
from calibrate.workload import Workload


def with_times(table: TierTable, before: TierTable | None, prober: WholeSong) -> TierTable:
    """Return the table with times for every tier that has cards with known speeds, as they are on Linux.

    Times of an earlier table that follow from the same things are kept: simulating all takes minutes.
    """
    timing = _Timing(table.on(System.LINUX), prober)
    variants = {}
    for variant, entry in table.variants.items():
        known = before.variants[variant].times if before is not None and variant in before.variants else {}
        times = dict(timing.of(variant, entry, known))
        variants[variant] = msgspec.structs.replace(entry, times=times)
    return msgspec.structs.replace(table, variants=variants)


_SAME_WORK: Final = {Variant.SFT: Variant.BASE, Variant.XL_SFT: Variant.XL_BASE}
"""Variants that differ from another in their weights only."""


class _Timing:
    """The times of one table; all its cards do the same work, which is simulated once."""

    def __init__(self, table: TierTable, prober: WholeSong) -> None:
        self._table = table
        self._prober = prober

    def of(
        self, variant: Variant, entry: VariantTable, known: Mapping[str, TierTimes]
    ) -> Iterator[tuple[str, TierTimes]]:
        """Yield the times of each tier by its id; a tier without a card of known speed has none."""
        for tier in entry.tiers:
            source = made_from(self._table, variant, tier)
            if tier.id in known and known[tier.id].made_from == source:
                yield tier.id, _sized(known[tier.id], sold_in(tier))
            elif cards := tuple(filter(None, (self._card(variant, card) for card in sold_in(tier)))):
                ways = tuple(self._ways(variant, tier))
                yield tier.id, TierTimes(evidence=times_evidence(tier), made_from=source, cards=cards, ways=ways)

    def _card(self, variant: Variant, card: CardSpeed) -> CardTimes | None:
        plan = planned_for(self._table, variant, card)
        knobs = Knobs(variant=variant, offload=plan.offload, quantization=plan.quantization)
        works = [self._work(knobs, length, card.vram_gib) for length in LENGTHS_S]
        if None in works:
            return None
        short, long = (work.seconds_on(card) for work in works if work is not None)
        return CardTimes(
            card=card.name,
            vram_gib=card.vram_gib,
            typical=card.use is CardUse.RANGE,
            offload=plan.offload,
            quantization=plan.quantization,
            stages={Stage(name): _rounded(short[name], long[name]) for name in short},
            thinking=tuple(self._thinking(card, plan)),
        )

    def _thinking(self, card: CardSpeed, plan: Plan) -> Iterator[ThinkTime]:
        for model in plan.lm_models:
            wish = Overrides(variant=plan.variant, lm=model)
            weights = resolve(plan.card, self._table, wish).lm_quantization
            # The work of writing does not depend on where the transformer is.
            knobs = Knobs(lm=model, lm_quantization=weights, offload=Offload.CPU)
            for backend in plan.backends_allowed:
                if backend is Backend.MLX or (backend is Backend.VLLM and weights is not None):
                    continue
                written = [self._prober.writing(knobs, _one_song(length, with_lm=True), 1) for length in LENGTHS_S]
                seconds = [thinking_seconds(card, backend, *work) for work in written]
                yield ThinkTime(lm=model, backend=backend, lm_quantization=weights, seconds=_rounded(*seconds))

    def _ways(self, variant: Variant, tier: Tier) -> Iterator[OtherWay]:
        """Yield each offload with the tier's quantization, and its offload with the other, if a long song fits."""
        other = None if tier.quantization is not None else Quantization.INT8
        pairs = [(offload, tier.quantization) for offload in Offload] + [(tier.offload, other)]
        own = self._way(variant, tier, tier.offload, tier.quantization)
        for offload, quantization in pairs:
            work = self._way(variant, tier, offload, quantization)
            if own is None or work is None:
                continue
            ratios = [_total(work, card) / _total(own, card) for card in sold_in(tier)]
            yield OtherWay(
                offload=offload,
                quantization=quantization,
                times_as_long=_rounded(min(ratios), max(ratios)),
                bus_bytes=work.bus_bytes,
            )

    def _way(
        self, variant: Variant, tier: Tier, offload: Offload, quantization: Quantization | None
    ) -> SongWork | None:
        knobs = Knobs(variant=variant, offload=offload, quantization=quantization)
        return self._work(knobs, LENGTHS_S[-1], tier.certified_gib)

    def _work(self, knobs: Knobs, length_s: int, size_gib: float) -> SongWork | None:
        knobs = msgspec.structs.replace(knobs, variant=_SAME_WORK.get(knobs.variant, knobs.variant))
        return song_work(knobs, _one_song(length_s), self._table.room_bytes(size_gib), self._prober)


def _sized(times: TierTimes, cards: Sequence[CardSpeed]) -> TierTimes:
    """Return times that follow from these cards with their sizes, which older tables lack."""
    sizes = {card.name: card.vram_gib for card in cards}
    timed = tuple(msgspec.structs.replace(card, vram_gib=sizes[card.card]) for card in times.cards)
    return msgspec.structs.replace(times, cards=timed)


def _one_song(seconds: int, *, with_lm: bool = False) -> Workload:
    return Workload(batch=1, duration_s=float(seconds), with_lm=with_lm)


def _total(work: SongWork, card: CardSpeed) -> float:
    return sum(work.seconds_on(card).values())


def _rounded(first: float, last: float) -> BothLengths:
    return round(first, 3), round(last, 3)
