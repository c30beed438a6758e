"""Every number of the table is explained: its value, and two probes of its record that bracket it."""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from acestep.budgets import System
from acestep.evidence import EvidenceKind
from acestep.knobs import Backend, Knobs, Variant
from acestep.tiers import TierTable, load_tiers
from acestep.units import GIB, MIB
from calibrate.campaign.run import CampaignScope, run_campaign
from calibrate.executors.alone import SimulationAlone
from calibrate.explain.document import ExplainedSource
from calibrate.explain.fields import fields_of
from calibrate.explain.origin import explain
from calibrate.explain.sources import Find, Recorded, records_in
from calibrate.probes.base import CapMethod
from calibrate.record.measurement import Measurement, RecordedCardKind, load_measurement, measurement_of
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from calibrate.workload import Workload
from tests.explained import DECIDED, Judge, paths
from tests.fakes import AnalyticProber, Hungry, lm_bytes, measured
from tests.some import first_of

TIERS = Path(__file__).parents[2] / "tiers"
POLICY = load_policy()
PARTS = ("_gib", ".tier")
"""What the parts of a boundary end with."""


class Thinking(AnalyticProber):
    """The same card, whose language models take more, most so on vLLM."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def think_bytes(self, knobs: Knobs, workload: Workload, songs: int) -> int:
        more = lm_bytes(knobs) * self._share * (2 if knobs.backend is Backend.VLLM else 1)
        return super().think_bytes(knobs, workload, songs) + int(more)


class Growing(AnalyticProber):
    """The same card, on which longer songs take much more."""

    def need(self, knobs: Knobs, workload: Workload) -> int:
        return super().need(knobs, workload) + int(workload.batch * workload.duration_s) * 3 * MIB


def on_pytorch_alone() -> Measurement:
    """A record of a real card that did not run vLLM."""
    scope = CampaignScope(variant=Variant.TURBO, sizes_gib=POLICY.certified_sizes_gib, backends=(Backend.PT,))
    found = run_campaign(SimulationAlone(AnalyticProber()), POLICY, scope, progress=lambda _: None)
    card = msgspec.structs.replace(measured().card, kind=RecordedCardKind.CUDA, name="a card")
    return measurement_of(card, found.probes, found.certificates, cap_method=CapMethod.FRACTION)


RECORDS = {
    "the formula": lambda: [measured()],
    "1 GiB more": lambda: [measured(Hungry(GIB))],
    "3 GiB more": lambda: [measured(Hungry(3 * GIB))],
    "16 GiB more": lambda: [measured(Hungry(16 * GIB))],
    "longer songs take more": lambda: [measured(Growing())],
    "thinking takes more": lambda: [measured(Thinking(1.0))],
    "no language model fits": lambda: [measured(Thinking(40.0))],
    "PyTorch alone, on a card": lambda: [on_pytorch_alone()],
    "a record for each size": lambda: [measured(sizes=(size,)) for size in POLICY.certified_sizes_gib],
}


def finding(records: Mapping[str, Measurement]) -> Find:
    def find(digest: str) -> Recorded:
        record = records[digest]
        return ExplainedSource(file="a file", digest=digest, card=record.card, code_version=record.code_version), record

    return find


def judge_all(
    table: TierTable, records: Mapping[str, Measurement], find: Find, variant: Variant, *, limits_only: bool = False
) -> set[str]:
    """Explain every field of a variant, or those that rest on probes alone, and return the fields explained."""
    entry = table.variants[variant]
    judge = Judge(entry, POLICY, dict(records))
    document = json.loads(msgspec.json.encode(entry))
    asked: dict[str, object] = dict(paths(document["boundaries"], "boundaries"))
    for tier, row in zip(entry.tiers, document["tiers"], strict=True):
        # Boundaries are the same for every tier of a variant.
        fields = dict(paths(row)) | (asked if tier is entry.tiers[0] else {})
        for field, value in fields.items():
            if limits_only and (field.startswith(("evidence", *DECIDED)) or field.endswith(PARTS)):
                continue
            found = explain(table, POLICY, find, variant, tier.id, field)
            assert (found.variant, found.tier, found.field, found.value) == (variant, tier.id, field, value)
            for cell in found.cells:
                assert cell.value == fields[cell.field]
                assert cell.field.startswith(field) or field.startswith(cell.field)
                judge.judge(tier, cell)
        asked |= fields
    return set(asked)


@pytest.mark.parametrize("variant", first_of(Variant, 2))
def test_every_field_of_the_committed_table_is_bracketed_by_its_probes(variant: Variant) -> None:
    table = load_tiers(TIERS / "generated_tiers.json")
    record = load_measurement(TIERS / "measurements" / f"simulated-{variant}.json")
    records = {record.digest: record}
    asked = judge_all(table, records, records_in(TIERS), variant)
    assert asked >= {"max_batch.with_lm", "frontier.without_lm.4", "lm_songs_per_pass.0.6B", "boundaries.lm.4B"}


@pytest.mark.parametrize("name", first_of(RECORDS, 4))
def test_every_field_of_any_table_is_bracketed_by_its_probes(name: str) -> None:
    records = {record.digest: record for record in RECORDS[name]()}
    table = build_table([*records.values()], POLICY)
    judge_all(table, records, finding(records), Variant.TURBO, limits_only=True)


def test_estimated_cells_say_by_which_rule() -> None:
    simulated, alone = measured(), on_pytorch_alone()
    for record, said in ((simulated, "vLLM did not run"), (alone, "No probe of this record")):
        table = build_table([record], POLICY)
        find = finding({record.digest: record})
        for tier in table.variants[Variant.TURBO].tiers:
            (cell,) = explain(table, POLICY, find, "turbo", tier.id, "max_batch.with_lm").cells
            assert (cell.evidence.kind is EvidenceKind.ESTIMATED) == (said in cell.rule)
            assert cell.evidence == tier.evidence["max_batch.with_lm"]


def test_a_budget_is_the_nameplate_less_the_terms_shown() -> None:
    record = measured()
    table = build_table([record], POLICY)
    for tier in table.variants[Variant.TURBO].tiers:
        (cell,) = explain(table, POLICY, finding({record.digest: record}), "turbo", tier.id, "offload").cells
        (budget,) = cell.budgets
        left = budget.nameplate_gib - sum(term.gib for term in budget.terms)
        assert left * GIB == pytest.approx(budget.cap_bytes, abs=1)
        assert {term.name for term in budget.terms} == set(POLICY.taken_gib(budget.nameplate_gib, System.LINUX))


def test_the_fields_are_those_of_the_file() -> None:
    table = load_tiers(TIERS / "generated_tiers.json")
    document = json.loads((TIERS / "generated_tiers.json").read_text(encoding="utf-8"))
    entry = table.variants[Variant.TURBO]
    for tier, row in zip(entry.tiers, document["variants"]["turbo"]["tiers"], strict=True):
        named = {name: value for name, value in fields_of(tier, entry).items() if not name.startswith("boundaries")}
        assert {name: field.value for name, field in named.items()} == dict(paths(row))
