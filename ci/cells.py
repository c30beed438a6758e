"""The certified cells of a table and the simulated probes that prove them."""

from collections.abc import Iterator, Sequence
from itertools import product

import msgspec

from acestep.budgets import System
from acestep.errors import NotMeasuredError
from acestep.evidence import EvidenceKind
from acestep.knobs import Backend, Knobs, Variant
from acestep.tiers import Tier, TierTable
from calibrate.record.measurement import Measurement, RecordedCardKind, RecordedProbe
from calibrate.table.merge import build_table
from calibrate.table.policy import Policy, budget_bytes
from calibrate.workload import Workload
from ci.findings import Finding, FindingValue, Level


class GateCell(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a tier in one `state` and the probe that fits there.

    A state is `without_lm`, `with_lm.pt` with the recommended language model, or `with_lm.4B.vllm` with another.
    `proven_cap_bytes` is the smallest cap at which the records saw the same run fit. A `released` cell is that of the
    last release, with which only the stages are compared. One of Windows has a `state` that begins with its name.
    `recommended` is False where a user has to choose the language model.
    """

    variant: Variant
    tier: str
    state: str
    probe: RecordedProbe
    proven_cap_bytes: int
    released: bool = False
    recommended: bool = True
    system: System = System.LINUX

    @property
    def place(self) -> str:
        """The cell in words, for a sentence."""
        workload = self.probe.workload
        return f"{self.variant} {self.tier}, {workload.batch} x {workload.duration_s:g} s {self.state}"


def finding_of(
    rule: str,
    cell: GateCell,
    what: str,
    told: str,
    *,
    before: FindingValue = None,
    after: FindingValue = None,
    stage: str = "",
    component: str = "",
) -> Finding:
    """A finding of a rule about `what` of a cell, told in words that follow the cell's own."""
    return Finding(
        id=rule,
        variant=cell.variant,
        tier=cell.tier,
        field=f"{what}.{cell.state}",
        before=before,
        after=after,
        stage=stage,
        component=component,
        message=f"{cell.place}: {told}.",
    )


Probes = dict[tuple[Knobs, Workload], list[RecordedProbe]]


def certified_cells(
    table: TierTable, policy: Policy, records: Sequence[Measurement]
) -> tuple[list[GateCell], list[Finding]]:
    """Return every cell at a tier's limits that a simulated record proves, and a finding for each without proof."""
    cells: list[GateCell] = []
    missing: list[Finding] = []
    for system, (variant, entry) in product(System, table.variants.items()):
        probes = _fitting([record for record in records if record.card.system is system])
        for tier in entry.tiers if system is System.LINUX else entry.windows:
            cap_bytes = budget_bytes(tier.certified_gib, policy, system)
            for limit, knobs, workload in _limits(variant, tier):
                state = limit if system is System.LINUX else f"{system}.{limit}"
                same = probes.get((knobs, workload), [])
                at_cap = next((probe for probe in same if probe.cap_bytes == cap_bytes), None)
                if at_cap is None:
                    missing.append(_missing(variant, tier, state))
                    continue
                cell = GateCell(
                    variant=variant,
                    tier=tier.id,
                    state=state,
                    probe=at_cap,
                    proven_cap_bytes=min(probe.cap_bytes for probe in same),
                    recommended=knobs.lm in (None, tier.recommended_lm),
                    system=system,
                )
                cells.append(cell)
    return cells, missing


def judged_cells(
    table: TierTable, policy: Policy, records: Sequence[Measurement]
) -> tuple[list[GateCell], list[Finding]]:
    """Return the cells that the gate judges: those of `simulated_promises`, as `certified_cells` gives them."""
    return certified_cells(simulated_promises(table, policy, records), policy, records)


def simulated_promises(table: TierTable, policy: Policy, records: Sequence[Measurement]) -> TierTable:
    """Return the table that the simulated records alone make, or `table` where they do not cover it.

    Its cells are judged: what a real card measured must not switch the simulation off.
    """
    simulated = [record for record in records if record.card.kind is RecordedCardKind.SIMULATED]
    try:
        return build_table(simulated, policy)
    except NotMeasuredError:
        return table


def lost_coverage(before: Sequence[GateCell], table: TierTable, missing: Sequence[Finding]) -> Iterator[Finding]:
    """Yield a finding for each cell of the base that the records of the change no longer let the gate simulate."""
    promised = {(variant, tier.id) for variant, entry in table.variants.items() for tier in entry.tiers}
    gone = {(finding.variant, finding.tier, finding.field) for finding in missing}
    for cell in before:
        if (cell.variant, cell.tier) in promised and (cell.variant, cell.tier, cell.state) in gone:
            yield Finding(
                id="G305",
                variant=cell.variant,
                tier=cell.tier,
                field=cell.state,
                message=f"{cell.variant} {cell.tier}, {cell.state}: the simulated record of this cell is gone.",
            )


def _fitting(records: Sequence[Measurement]) -> Probes:
    """Return the simulated probes that keep their promise, by their question."""
    found: Probes = {}
    for record in records:
        for probe in record.probes if record.card.kind is RecordedCardKind.SIMULATED else ():
            if probe.counts:
                found.setdefault((probe.knobs, probe.workload), []).append(probe)
    return found


def _limits(variant: Variant, tier: Tier) -> Iterator[tuple[str, Knobs, Workload]]:
    """Yield a tier's headline limits, without and with each language model, as the runs that prove them."""
    if tier.max_batch.without_lm:
        yield "without_lm", _knobs(variant, tier), _workload(tier, lm=False)
    for model in tier.lm_models:
        thinking = tier.thinking_with(model)
        named = "with_lm" if model == tier.recommended_lm else f"with_lm.{model}"
        for backend in thinking.backends_allowed:
            if backend is not Backend.MLX:
                knobs = msgspec.structs.replace(
                    _knobs(variant, thinking), lm=model, lm_quantization=thinking.lm_quantization, backend=backend
                )
                yield f"{named}.{backend}", knobs, _workload(thinking, lm=True)


def _knobs(variant: Variant, tier: Tier) -> Knobs:
    return Knobs(variant=variant, offload=tier.offload, quantization=tier.quantization)


def _workload(tier: Tier, *, lm: bool) -> Workload:
    return Workload(batch=tier.max_batch.of(lm=lm), duration_s=float(tier.max_duration_s.of(lm=lm)), with_lm=lm)


def _missing(variant: Variant, tier: Tier, state: str) -> Finding:
    """A cell that only a real or virtual card has run is for a card to judge; any other must have its probe."""
    found = tier.evidence.get("max_batch")
    on_a_card = found is not None and found.kind in (EvidenceKind.MEASURED, EvidenceKind.VIRTUAL)
    return Finding(
        id="G702" if on_a_card else "G203",
        level=Level.WARNING if on_a_card else Level.ERROR,
        variant=variant,
        tier=tier.id,
        field=state,
        message=f"{variant} {tier.id}, {state}: no simulated record at the base holds the probe of this cell.",
    )
