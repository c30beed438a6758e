"""Records + policy -> the tier table. Pure: the same records and policy give the same bytes."""

from collections.abc import Sequence

import msgspec

from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs, Variant
from acestep.tiers import (
    BATCHES,
    SCHEMA_VERSION,
    Boundaries,
    Boundary,
    Evidence,
    Frontier,
    GeneratedFrom,
    LmStates,
    Tier,
    TierTable,
    VariantTable,
)
from calibrate.knobs import Config, configured, first_from_which_all_fit, ladder, preferred
from calibrate.policy import Policy, TierPolicy, budget_bytes
from calibrate.record import CardKind, Measurement
from calibrate.workload import Workload

TABLE_VERSION = 1
"""Counts changes of what the table's fields mean."""

_DECIDED = ("vram_gib", "certified_gib", "backend", "backends_allowed", "compile", "init_lm")
_FOUND = ("max_duration_s", "max_batch", "offload", "quantization", "frontier")


def build_table(records: Sequence[Measurement], policy: Policy) -> TierTable:
    """The table of every variant that the records cover; `NotMeasuredError` names a tier that none of them covers.

    A measured record beats a simulated one; among equals the card that needs the most frugal knobs decides, then the
    one that promises least.
    """
    covered = [v for v in Variant if any(c.knobs.variant is v for r in records for c in r.certificates)]
    if Variant.TURBO not in covered:
        raise NotMeasuredError(
            f"no record certifies {Variant.TURBO}; run `python -m calibrate run -o tiers/measurements/NAME.json` first"
        )
    return TierTable(
        schema_version=SCHEMA_VERSION,
        table_version=TABLE_VERSION,
        generated_from=GeneratedFrom(
            records=tuple(sorted(record.digest for record in records)),
            policy=policy.digest,
            code_version=" ".join(sorted({record.code_version for record in records})),
        ),
        variants={variant: _variant_table(records, policy, variant) for variant in covered},
    )


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """One tier as one record proves it."""

    record: Measurement
    decided: TierPolicy
    cap_bytes: int
    rung: int
    knobs: Knobs
    frontier: Frontier

    @property
    def rank(self) -> tuple[bool, int, tuple[int, ...], str]:
        """Sorts the row that decides first: measured, then the most frugal knobs, then the smallest promise."""
        promise = tuple(self.frontier.without_lm[str(batch)] for batch in BATCHES)
        return self.record.card.kind is CardKind.SIMULATED, -self.rung, promise, self.record.digest

    def fits(self, config: Config) -> bool:
        """Whether a config carries the tier's own limits."""
        batch = self.frontier.headline_batch(lm=False)
        if batch == 0:
            return False
        knobs = configured(self.knobs, config)
        limits = Workload(batch=batch, duration_s=float(self.frontier.longest(1, lm=False)))
        asked = [p for p in self.record.probes if (p.knobs, p.workload, p.cap_bytes) == (knobs, limits, self.cap_bytes)]
        if not asked:
            raise _uncovered(self.decided, self.knobs.variant)
        return asked[0].counts


def _prove(record: Measurement, decided: TierPolicy, policy: Policy, variant: Variant) -> _Row | None:
    """The row a record proves, or None where it lacks a certificate that the choice of knobs needs."""
    cap_bytes = budget_bytes(decided.certified_gib, policy)
    certified = {(c.knobs, c.batch): record.longest(c) for c in record.certificates if c.cap_bytes == cap_bytes}
    reach: dict[Knobs, int] = {}
    for knobs in ladder(policy, variant):
        if (knobs, 1) not in certified:
            return None
        reach[knobs] = certified[knobs, 1]
        if reach[knobs] == policy.durations_s.values[-1]:
            break
    chosen = preferred(reach)
    return _Row(
        record=record,
        decided=decided,
        cap_bytes=cap_bytes,
        rung=list(reach).index(chosen),
        knobs=chosen,
        frontier=Frontier(
            with_lm={str(batch): 0 for batch in BATCHES},
            without_lm={str(batch): certified.get((chosen, batch), 0) for batch in BATCHES},
        ),
    )


def _variant_table(records: Sequence[Measurement], policy: Policy, variant: Variant) -> VariantTable:
    rows = []
    for decided in policy.tiers:
        proven = [row for record in records if (row := _prove(record, decided, policy, variant)) is not None]
        if not proven:
            raise _uncovered(decided, variant)
        rows.append(min(proven, key=lambda row: row.rank))

    def from_which(config: Config) -> Boundary:
        first = first_from_which_all_fit([row.fits(config) for row in rows])
        fits, fails = rows[first : first + 1], rows[:first][-1:]
        return Boundary(
            fits_gib=fits[0].decided.certified_gib if fits else 0,
            fails_gib=fails[0].decided.certified_gib if fails else 0,
            tier=fits[0].decided.id if fits else "",
        )

    return VariantTable(
        tiers=tuple(_tier(row, policy) for row in rows),
        boundaries=Boundaries(
            without_int8=from_which(Config.NO_QUANT), without_offload=from_which(Config.NO_OFFLOAD), lm={}
        ),
        memory_model=_memory_model(records, variant),
    )


def _memory_model(records: Sequence[Measurement], variant: Variant) -> dict[str, float]:
    """The coefficients of the first record, by digest, that has some for a variant."""
    for record in sorted(records, key=lambda record: record.digest):
        model = {number.name: number.value for number in record.memory_model if number.variant is variant}
        if model:
            return model
    return {}


def _tier(row: _Row, policy: Policy) -> Tier:
    decided, record = row.decided, row.record
    kind = "simulated" if record.card.kind is CardKind.SIMULATED else "measured"
    found = Evidence(kind=kind, record=record.digest)
    chosen = Evidence(kind="policy", record=policy.digest)
    return Tier(
        id=decided.id,
        label=decided.label,
        vram_gib=decided.vram_gib,
        certified_gib=decided.certified_gib,
        lm_models=(),
        recommended_lm=None,
        backend=decided.backend,
        backends_allowed=decided.backends_allowed,
        max_duration_s=LmStates(with_lm=0, without_lm=row.frontier.longest(1, lm=False)),
        max_batch=LmStates(with_lm=0, without_lm=row.frontier.headline_batch(lm=False)),
        offload=row.knobs.offload,
        quantization=row.knobs.quantization,
        lm_quantization=None,
        compile=policy.compile.default,
        init_lm=decided.init_lm,
        lm_songs_per_pass={},
        frontier=row.frontier,
        evidence=dict.fromkeys(_FOUND, found) | dict.fromkeys(_DECIDED, chosen),
    )


def _uncovered(decided: TierPolicy, variant: Variant) -> NotMeasuredError:
    return NotMeasuredError(
        f"no record covers {decided.id} for {variant} at the budget of {decided.certified_gib} GiB under this policy;"
        f" run `python -m calibrate run --variant {variant} --tiers {decided.certified_gib} -o FILE`"
    )
