"""Records + policy -> the tier table. Pure: the same records and policy give the same bytes."""

from collections.abc import Iterator, Sequence
from itertools import product

import msgspec

from acestep.budgets import System, SystemBudget
from acestep.errors import NotMeasuredError
from acestep.evidence import Evidence, EvidenceKind
from acestep.knobs import LM_MODELS, Knobs, Variant
from acestep.tiers import (
    TABLE_SCHEMA_VERSION,
    Boundaries,
    GeneratedFrom,
    LmNeeds,
    LmStates,
    SizeBoundary,
    Tier,
    TierTable,
    VariantTable,
)
from calibrate.record.measurement import Measurement, RecordedCard
from calibrate.table.choice import UnansweredByRecordError, choose_tier
from calibrate.table.knobs import Config, first_from_which_all_fit
from calibrate.table.policy import Policy, TierPolicy, budget_bytes
from calibrate.table.proven import ProvenTier, uncovered
from calibrate.table.ratchet import deciding
from calibrate.table.targets import BOUND, published, shortfalls
from calibrate.table.trades import trades
from calibrate.table.waivers import Waiver, trusted_records

TABLE_VERSION = 1
"""Increased when the meaning of the table's fields changes."""

BOUNDARY_CONFIGS = {"without_int8": Config.NO_QUANT, "without_offload": Config.NO_OFFLOAD}
"""The config with which each boundary between sizes is asked; those of language models are separate."""

_DECIDED = ("vram_gib", "certified_gib", "backend", "backends_allowed", "compile", "init_lm")
_FOUND = ("max_duration_s", "max_batch", "offload", "quantization", "frontier")
_THOUGHT = (
    "lm_models",
    "recommended_lm",
    "lm_quantization",
    "lm_songs_per_pass",
    "max_duration_s.with_lm",
    "max_batch.with_lm",
    "frontier.with_lm",
)


def build_table(records: Sequence[Measurement], policy: Policy, waivers: Sequence[Waiver] = ()) -> TierTable:
    """Return the table of every variant that the records cover.

    Raises `NotMeasuredError` naming a tier that none covers. A measured record has priority over a simulated one; among
    equals the card that needs the most frugal knobs decides, then the one with the smallest limits. Records of Windows
    decide what is promised there. `waivers` name the records of one card that may promise more than the simulation.
    """
    linux, windows = ([record for record in records if record.card.system is system] for system in System)
    covered = _covered(linux)
    if Variant.TURBO not in covered:
        raise NotMeasuredError(
            f"no record certifies {Variant.TURBO}; run `python -m calibrate run -o tiers/measurements/NAME.json` first"
        )
    variants = {variant: _variant_table(linux, windows, policy, variant, waivers) for variant in covered}
    return TierTable(
        schema_version=TABLE_SCHEMA_VERSION,
        table_version=TABLE_VERSION,
        generated_from=GeneratedFrom(
            records=tuple(sorted(record.digest for record in records)),
            policy=policy.digest,
            code_version=" ".join(sorted({record.code_version for record in records})),
        ),
        variants=variants,
        shortfalls=shortfalls(variants[BOUND].tiers, published()),
        budgets=tuple(
            SystemBudget(system=system, nameplate_gib=float(size), n_bytes=budget_bytes(size, policy, system))
            for system in System
            for size in policy.certified_sizes_gib
        ),
    )


def disagreements(records: Sequence[Measurement], policy: Policy) -> tuple[str, ...]:
    """Return a sentence for each tier about which records of one card disagree; the more careful one decides."""
    told: list[str] = []
    for variant, decided in product(_covered(records), policy.tiers):
        by_card: dict[RecordedCard, list[ProvenTier]] = {}
        for row in _proven(records, decided, policy, variant):
            by_card.setdefault(row.record.card, []).append(row)
        told += [
            f"Records of {card.name} disagree about {decided.id} of {variant}:"
            f" {' and '.join(row.record.digest for row in sorted(rows, key=lambda row: row.rank))}; the first decides."
            for card, rows in by_card.items()
            if any(row.choice != rows[0].choice for row in rows)
        ]
    return tuple(told)


def _covered(records: Sequence[Measurement]) -> list[Variant]:
    return [v for v in Variant if any(c.knobs.variant is v for r in records for c in r.certificates)]


def prove(record: Measurement, decided: TierPolicy, policy: Policy, variant: Variant) -> ProvenTier | None:
    """Return the tier as a record proves it, or None if it lacks a certificate that the choice needs."""
    cap_bytes = budget_bytes(decided.certified_gib, policy, record.card.system)
    certified = {(c.knobs, c.batch): record.longest(c) for c in record.certificates if c.cap_bytes == cap_bytes}
    probed = {certificate.knobs.backend for certificate in record.certificates if certificate.knobs.lm is not None}
    if not probed:
        return None

    def ask(knobs: Knobs, batch: int, at_most: int) -> int:  # noqa: ARG001 a FindLongest's arguments
        if (knobs, batch) not in certified:
            raise UnansweredByRecordError(knobs, batch)
        return certified[knobs, batch]

    try:
        choice = choose_tier(ask, policy, decided, variant, probed)
    except UnansweredByRecordError:
        return None
    return ProvenTier(record=record, decided=decided, cap_bytes=cap_bytes, choice=choice)


def _proven(records: Sequence[Measurement], decided: TierPolicy, policy: Policy, variant: Variant) -> list[ProvenTier]:
    return [row for record in records if (row := prove(record, decided, policy, variant)) is not None]


def _variant_table(
    records: Sequence[Measurement],
    windows: Sequence[Measurement],
    policy: Policy,
    variant: Variant,
    waivers: Sequence[Waiver],
) -> VariantTable:
    rows = []
    for decided in policy.tiers:
        proven = _proven(records, decided, policy, variant)
        if not proven:
            raise uncovered(decided, variant)
        rows.append(deciding(proven, trusted=trusted_records(waivers, variant, decided.id)))

    tiers = tuple(tier_of(row, policy) for row in rows)
    own = tuple(_otherwise(tiers, windows, policy, variant, waivers))
    table = VariantTable(
        tiers=tiers,
        windows=own,
        boundaries=boundaries_of(rows),
        memory_model=_memory_model(records, variant),
    )
    told = {trade.sentence: trade for system in reversed(System) for trade in trades(table.on(system).tiers, system)}
    order = sorted(told.values(), key=lambda trade: list(System).index(trade.system))
    return msgspec.structs.replace(table, trades=tuple(order))


def _otherwise(
    tiers: Sequence[Tier],
    records: Sequence[Measurement],
    policy: Policy,
    variant: Variant,
    waivers: Sequence[Waiver],
) -> Iterator[Tier]:
    """Yield what records of another system prove of the tiers, where it is another promise."""
    for tier, decided in zip(tiers, policy.tiers, strict=True):
        if proven := _proven(records, decided, policy, variant):
            own = tier_of(deciding(proven, trusted=trusted_records(waivers, variant, decided.id)), policy)
            if msgspec.structs.replace(own, evidence=tier.evidence) != tier:
                yield own


def boundaries_of(rows: Sequence[ProvenTier]) -> Boundaries:
    """Return the sizes from which INT8 and offload can be off, and each language model fits; the tiers in order."""

    def from_which(answers: list[bool]) -> SizeBoundary:
        first = first_from_which_all_fit(answers)
        fits, fails = rows[first : first + 1], rows[:first][-1:]
        return SizeBoundary(
            fits_gib=fits[0].decided.certified_gib if fits else 0,
            fails_gib=fails[0].decided.certified_gib if fails else 0,
            tier=fits[0].decided.id if fits else "",
        )

    return Boundaries(
        **{name: from_which([row.fits(config) for row in rows]) for name, config in BOUNDARY_CONFIGS.items()},
        lm={model: from_which([model in row.choice.lm.models for row in rows]) for model in LM_MODELS},
    )


def _memory_model(records: Sequence[Measurement], variant: Variant) -> dict[str, float]:
    """Return the coefficients of the first record, by digest, that has some for a variant."""
    for record in sorted(records, key=lambda record: record.digest):
        model = {number.name: number.value for number in record.memory_model if number.variant is variant}
        if model:
            return model
    return {}


def tier_of(row: ProvenTier, policy: Policy) -> Tier:
    """Return the row of the table."""
    decided, record, choice = row.decided, row.record, row.choice
    found = Evidence(kind=record.evidence, record=record.digest)
    chosen = Evidence(kind=EvidenceKind.POLICY, record=policy.digest)
    thought = Evidence(kind=EvidenceKind.ESTIMATED, record=record.digest) if row.lm_estimate else found
    own = choice.lm.models
    needs = {
        other.model: LmNeeds(
            offload=other.rung.offload,
            quantization=other.rung.quantization,
            lm_quantization=other.quantization,
            backends=other.backends,
            with_lm=other.reach,
        )
        for other in choice.others
    }
    models = tuple(model for model in LM_MODELS if model in (*own, *needs))
    return Tier(
        id=decided.id,
        label=decided.label,
        vram_gib=decided.vram_gib,
        certified_gib=decided.certified_gib,
        lm_models=models,
        recommended_lm=own[-1] if own else None,
        backend=decided.backend,
        backends_allowed=decided.backends_allowed,
        max_duration_s=_headline(choice.frontier.longest(1, lm=True), choice.frontier.longest(1, lm=False)),
        max_batch=_headline(choice.frontier.headline_batch(lm=True), choice.frontier.headline_batch(lm=False)),
        offload=choice.knobs.offload,
        quantization=choice.knobs.quantization,
        lm_quantization=choice.lm.quantization,
        compile=policy.compile.default,
        init_lm=decided.init_lm and bool(own),
        lm_songs_per_pass={model: row.fewest_planned(model)[0] for model in models},
        frontier=choice.frontier,
        lm_needs=needs,
        evidence=({"lm_needs": thought} if needs else {})
        | dict.fromkeys(_FOUND, found)
        | dict.fromkeys(_THOUGHT, thought)
        | dict.fromkeys(_DECIDED, chosen),
    )


def _headline(with_lm: int, without_lm: int) -> LmStates:
    return LmStates(with_lm=with_lm, without_lm=without_lm)
