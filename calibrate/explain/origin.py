"""From a field of the table to its origin. Pure, except that records are read when they are needed."""

from collections.abc import Iterable

import msgspec

from acestep.errors import InvalidInputError, NotMeasuredError, UsageError
from acestep.evidence import Evidence, EvidenceKind, short_digest
from acestep.knobs import Backend, Variant
from acestep.limits.names import parse_knob
from acestep.tiers import Tier, TierTable, VariantTable
from calibrate.explain.document import ExplainedCell, ExplainedProbe, ExplainedSource, Explanation
from calibrate.explain.entries import (
    budget_of,
    decided_by_policy,
    entries_of_decided,
    entries_of_found,
    entries_of_sizes,
)
from calibrate.explain.evidence import VLLM_BESIDE, probe_evidence, rule_of, weakest
from calibrate.explain.fields import fields_of, shown_fields
from calibrate.explain.promises import promise_of
from calibrate.explain.repeat import repeat_command
from calibrate.explain.sources import Find
from calibrate.explain.witnesses import CertificateSide, TierWitnesses, Witnesses, boundary_witnesses
from calibrate.table.merge import boundaries_of, prove, tier_of
from calibrate.table.policy import Policy, TierPolicy
from calibrate.table.proven import ProvenTier

MERGE = "run `python -m calibrate merge` to make the table again"


def explain(table: TierTable, policy: Policy, find: Find, variant: str, tier: str, field: str) -> Explanation:
    """Return where the value of a field comes from.

    Raises `UsageError` for a variant, tier or field that the table does not have, and `InvalidInputError` if the table
    was not made from the policy and the records here.
    """
    if table.generated_from.policy != policy.digest:
        raise _inconsistent(
            f"was made under the policy {short_digest(table.generated_from.policy)}, and the policy.json here is"
            f" {short_digest(policy.digest)}"
        )
    chosen = _variant_of(variant, table)
    entry = table.variants[chosen]
    rows = {row.id: row for row in entry.tiers}
    row = rows[_known("tier", tier, rows)]
    fields = fields_of(row, entry)
    asked = fields[field if field in fields else _known("field", field, shown_fields(fields, field))]
    origin = _Origin(entry, policy, find, chosen)
    try:
        cells = tuple(origin.cell(row, cell, fields[cell].value) for cell in asked.cells)
    except NotMeasuredError as error:
        raise _inconsistent(f"rests on a record that lacks a probe ({error})") from None
    return Explanation(variant=chosen, tier=row.id, label=row.label, field=asked.path, value=asked.value, cells=cells)


class _Origin:
    """The cells of one variant."""

    def __init__(self, table: VariantTable, policy: Policy, find: Find, variant: Variant) -> None:
        self._table = table
        self._policy = policy
        self._find = find
        self._variant = variant
        self._proven: dict[str, ProvenTier] = {}

    def cell(self, tier: Tier, cell: str, value: object) -> ExplainedCell:
        """One cell of a row, or a boundary of the variant."""
        field, _, rest = cell.partition(".")
        bare = ExplainedCell(
            field=cell,
            value=value,
            promise=promise_of(cell, tier, self._table, value),
            evidence=Evidence(kind=EvidenceKind.POLICY, record=self._policy.digest),
            rule=rule_of(EvidenceKind.POLICY, None),
        )
        if field == "boundaries":
            return self._boundary(bare, rest)
        if decided_by_policy(field):
            self._require_decided(tier, field)
            return msgspec.structs.replace(bare, policy=entries_of_decided(field, self._decided(tier), self._policy))
        if field == "evidence" and decided_by_policy(rest):
            return bare
        row = self._row(tier)
        evidence = self._evidence(cell, tier)
        found = msgspec.structs.replace(
            bare, evidence=evidence, rule=rule_of(evidence.kind, row), sources=(self._source(row),)
        )
        if field == "evidence":
            return found
        return msgspec.structs.replace(
            self._with_probes(found, self._witnesses(row, field, rest)),
            budgets=(budget_of(row, self._policy),),
            policy=entries_of_found(field, row, self._policy),
        )

    def _witnesses(self, row: ProvenTier, field: str, rest: str) -> Witnesses:
        """Return the two probes behind a measured field."""
        own = TierWitnesses(row, self._policy)
        state, _, batch = rest.partition(".")
        lm = state == "with_lm"
        if field in ("max_duration_s", "frontier"):
            return own.frontier(int(batch or 1), lm=lm)
        if field == "max_batch":
            return own.largest_batch(lm=lm)
        if field in ("offload", "quantization"):
            return own.rung(field)
        if field == "lm_quantization":
            return own.lm_weights()
        if field == "lm_needs" and rest:
            return own.making_room(rest)
        return own.planned(rest) if rest else own.language_models()

    def _boundary(self, bare: ExplainedCell, name: str) -> ExplainedCell:
        rows = [self._row(tier) for tier in self._table.tiers]
        if boundaries_of(rows) != self._table.boundaries:
            raise _inconsistent(f"has boundaries of {self._variant} that do not follow from its records")
        found = self._table.boundaries.named[name]
        sizes = (found.fits_gib, found.fails_gib)
        sides = [row for size in sizes for row in rows if row.decided.certified_gib == size]
        tiers = [tier for tier in self._table.tiers if tier.certified_gib in sizes]
        evidence = weakest([self._evidence(bare.field, tier) for tier in tiers])
        weak = next(row for row in sides if self._evidence(bare.field, tier_of(row, self._policy)) == evidence)
        cell = msgspec.structs.replace(bare, evidence=evidence, rule=rule_of(evidence.kind, weak))
        return msgspec.structs.replace(
            self._with_probes(cell, boundary_witnesses(rows, self._policy, name, found.tier)),
            sources=tuple(dict.fromkeys(self._source(row) for row in sides)),
            budgets=tuple(budget_of(row, self._policy) for row in sides),
            policy=entries_of_sizes(tuple(sides), self._policy),
        )

    def _with_probes(self, cell: ExplainedCell, found: Witnesses) -> ExplainedCell:
        return msgspec.structs.replace(
            cell,
            rule=" ".join(filter(None, [cell.rule, _computed(cell.evidence.kind, found)])),
            fits=_shown(found.fits),
            no_fits=found.no_fits,
            fails=_shown(found.fails),
            no_fails=found.no_fails,
        )

    def _row(self, tier: Tier) -> ProvenTier:
        """Return a tier as its record proves it, which must agree with the table; else raise `InvalidInputError`."""
        if tier.id not in self._proven:
            decided, (_, record) = self._decided(tier), self._find(self._evidence("frontier", tier).record)
            row = prove(record, decided, self._policy, self._variant)
            if row is None:
                raise _inconsistent(f"names {short_digest(record.digest)} for {tier.id}, which does not cover it")
            derived = tier_of(row, self._policy)
            other = [name for name in Tier.__struct_fields__ if getattr(derived, name) != getattr(tier, name)]
            if other:
                raise _inconsistent(
                    f"says of {self._variant} {tier.id} what does not follow from {short_digest(record.digest)}:"
                    f" {', '.join(other)}"
                )
            self._proven[tier.id] = row
        return self._proven[tier.id]

    def _decided(self, tier: Tier) -> TierPolicy:
        for decided in self._policy.tiers:
            if decided.id == tier.id:
                return decided
        raise _inconsistent(f"has {tier.id}, which is no tier of policy.json")

    def _require_decided(self, tier: Tier, field: str) -> None:
        decided = self._decided(tier)
        expected = self._policy.compile.default if field == "compile" else getattr(decided, field)
        if field == "init_lm":
            expected = expected and bool(tier.own_lm_models)
        if getattr(tier, field) != expected:
            raise _inconsistent(f"has another {field} for {tier.id} than policy.json")

    def _evidence(self, cell: str, tier: Tier) -> Evidence:
        found = probe_evidence(cell, tier)
        if found is None:
            raise _inconsistent(f"names no record for {cell} of {tier.id}")
        return found

    def _source(self, row: ProvenTier) -> ExplainedSource:
        return self._find(row.record.digest)[0]


def _computed(kind: EvidenceKind, found: Witnesses) -> str:
    """Return a remark about a probe with vLLM on a simulated card; "" if the rule of `kind` says it."""
    sides = [side for side in (found.fits, found.fails) if side is not None]
    computed = any(
        side.row.record.evidence is EvidenceKind.SIMULATED and side.probe.knobs.backend is Backend.VLLM
        for side in sides
    )
    return VLLM_BESIDE if computed and kind is not EvidenceKind.ESTIMATED else ""


def _shown(side: CertificateSide | None) -> ExplainedProbe | None:
    if side is None:
        return None
    probe, record = side.probe, side.row.record
    return ExplainedProbe(
        record=record.digest,
        index=record.probes.index(probe),
        knobs=probe.knobs,
        workload=probe.workload,
        cap_bytes=probe.cap_bytes,
        verdict=probe.verdict,
        songs_per_pass=probe.songs_per_pass,
        decode_path=probe.decode_path,
        stages=probe.stages,
        repeat=repeat_command(probe.knobs, probe.workload, side.row.decided.certified_gib, record.card.system),
    )


def _variant_of(text: str, table: TierTable) -> Variant:
    """A variant of the table by its short or published name."""
    try:
        variant = parse_knob("variant", text)
    except UsageError:
        variant = None
    if variant in table.variants:
        return Variant(variant)
    return Variant(_known("variant", text, table.variants))


def _known(what: str, text: str, known: Iterable[str]) -> str:
    """Return a known name; raise `UsageError` with all names, the most similar first."""
    listed = [str(name) for name in known]
    if text in listed:
        return text
    from difflib import SequenceMatcher

    near = sorted(listed, key=lambda name: -SequenceMatcher(None, name, text.casefold()).ratio())
    raise UsageError(f"{what} must be one of {', '.join(near)}, got {text!r}")


def _inconsistent(problem: str) -> InvalidInputError:
    return InvalidInputError("the tier table", f"{problem}; {MERGE}")
