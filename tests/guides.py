"""Tables to render: without a language model, with some, and measured; all from the card that is a formula."""

from functools import cache

import msgspec

from acestep.evidence import Evidence, EvidenceKind
from acestep.knobs import Backend, Quantization, Variant
from acestep.limits.guard import COEFFICIENTS
from acestep.tiers import BATCHES, Frontier, LmStates, Shortfall, SizeBoundary, Tier, TierTable
from acestep.units import GIB, MIB
from calibrate.probes.base import CapMethod
from calibrate.record.measurement import Coefficient, Measurement, RecordedCardKind
from calibrate.report.render import Sources
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from tests.fakes import AnalyticProber, measured

POLICY = load_policy()

MODEL = dict.fromkeys(COEFFICIENTS, 0.0) | {"encode": 1.2e9, "denoise.fixed": 3.1e9}
"""Coefficients of one way to run, the large ones of the size that real ones have."""


@cache
def simulated() -> Measurement:
    """A simulated record, with what the guard predicts from."""
    record = measured()
    ways = {(c.knobs.quantization or "none", c.knobs.offload.value) for c in record.certificates}
    model = tuple(
        Coefficient(variant=Variant.TURBO, name=f"{quantization}.{offload}.{name}", value=value)
        for quantization, offload in sorted(ways)
        for name, value in MODEL.items()
    )
    return msgspec.structs.replace(record, memory_model=model).sealed()


class Slightly(AnalyticProber):
    """The same card, needing a little more: a real one."""

    def need(self, *asked: object) -> int:
        return super().need(*asked) + 40 * MIB  # type: ignore[arg-type]


@cache
def on_a_card(name: str = "NVIDIA GeForce RTX 3060") -> Measurement:
    """A record of a real card."""
    record = measured(Slightly())
    card = msgspec.structs.replace(record.card, kind=RecordedCardKind.CUDA, name=name, total_bytes=12 * GIB)
    return msgspec.structs.replace(record, card=card, cap_method=CapMethod.FRACTION).sealed()


def sources(*records: Measurement) -> Sources:
    """Pages' sources from records; no language model."""
    table = build_table(list(records), POLICY)
    entry = table.variants[Variant.TURBO]
    bare = msgspec.structs.replace(
        entry,
        tiers=tuple(without_lm(tier) for tier in entry.tiers),
        boundaries=msgspec.structs.replace(entry.boundaries, lm={}),
        trades=(),
    )
    return Sources(
        table=msgspec.structs.replace(table, variants={Variant.TURBO: bare}, shortfalls=()),
        policy=POLICY,
        records=records,
        files={record.digest: f"tiers/measurements/{n}.json" for n, record in enumerate(records)},
    )


def with_tiers(table: TierTable, *tiers: Tier, variant: Variant = Variant.TURBO) -> TierTable:
    """A table with these tiers in place of a variant's."""
    before = table.variants.get(variant, table.variants[Variant.TURBO])
    entry = msgspec.structs.replace(before, tiers=tiers, trades=())
    return msgspec.structs.replace(table, variants={**table.variants, variant: entry})


def with_table(base: Sources, table: TierTable) -> Sources:
    """The same sources with another table."""
    return msgspec.structs.replace(base, table=table)


def without_lm(tier: Tier) -> Tier:
    """A tier that offers no language model."""
    nothing = {str(batch): 0 for batch in BATCHES}
    return msgspec.structs.replace(
        tier,
        lm_models=(),
        recommended_lm=None,
        lm_quantization=None,
        lm_needs={},
        lm_songs_per_pass={},
        max_duration_s=LmStates(with_lm=0, without_lm=tier.max_duration_s.without_lm),
        max_batch=LmStates(with_lm=0, without_lm=tier.max_batch.without_lm),
        frontier=Frontier(with_lm=nothing, without_lm=tier.frontier.without_lm),
    )


def with_lm(tier: Tier, *models: str, quantization: Quantization | None = None) -> Tier:
    """A tier that offers language models, at evidence of its own."""
    found = tier.evidence["frontier"]
    entries = {"1": 480, "2": 480, "4": 270, "8": 0}
    kind = EvidenceKind.ESTIMATED if tier.backend is Backend.VLLM else found.kind
    return msgspec.structs.replace(
        tier,
        lm_models=models,
        recommended_lm=models[-1],
        lm_quantization=quantization,
        lm_needs={},
        lm_songs_per_pass=dict.fromkeys(models, 3),
        max_duration_s=LmStates(with_lm=480, without_lm=tier.max_duration_s.without_lm),
        max_batch=LmStates(with_lm=2, without_lm=tier.max_batch.without_lm),
        frontier=Frontier(with_lm=entries, without_lm=tier.frontier.without_lm),
        evidence=tier.evidence
        | dict.fromkeys(
            (
                *("lm_models", "recommended_lm", "lm_quantization", "lm_songs_per_pass"),
                *("max_duration_s.with_lm", "max_batch.with_lm", "frontier.with_lm"),
            ),
            Evidence(kind=kind, record=found.record),
        ),
    )


def thinking(base: Sources) -> Sources:
    """The same sources with language models on every tier but the first, and a second variant."""
    small, *rest = base.table.variants[Variant.TURBO].tiers
    tiers = (
        small,
        with_lm(rest[0], "0.6B", quantization=Quantization.INT8),
        *(with_lm(tier, "0.6B", "1.7B", "4B") for tier in rest[1:]),
    )
    table = with_tiers(with_tiers(base.table, *tiers), *tiers, variant=Variant.XL_TURBO)
    entry = table.variants[Variant.TURBO]
    boundaries = msgspec.structs.replace(
        entry.boundaries,
        without_int8=SizeBoundary(fits_gib=4, fails_gib=0, tier="tier1"),
        lm={
            "0.6B": SizeBoundary(fits_gib=5, fails_gib=4, tier="tier2"),
            "4B": SizeBoundary(fits_gib=0, fails_gib=24, tier=""),
        },
    )
    entry = msgspec.structs.replace(entry, boundaries=boundaries)
    short = Shortfall(tier="tier4", field="max_duration_s.with_lm", published="600", generated="480")
    variants = {**table.variants, Variant.TURBO: entry}
    return with_table(base, msgspec.structs.replace(table, variants=variants, shortfalls=(short,)))


def reaching(tier: Tier, entries: dict[str, int]) -> Tier:
    """The tier with these longest songs for each batch without a language model."""
    frontier = Frontier(with_lm=tier.frontier.with_lm, without_lm=entries)
    return msgspec.structs.replace(
        tier,
        frontier=frontier,
        max_duration_s=LmStates(with_lm=tier.max_duration_s.with_lm, without_lm=frontier.longest(1, lm=False)),
        max_batch=LmStates(with_lm=tier.max_batch.with_lm, without_lm=frontier.headline_batch(lm=False)),
    )
