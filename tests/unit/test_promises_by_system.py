"""A table says what Windows is promised where that differs, and what reads a table takes its own system's promise."""

from pathlib import Path

import msgspec
import pytest

from acestep import budgets as budgets_module
from acestep import tiers as tiers_module
from acestep.budgets import System
from acestep.evidence import EvidenceKind
from acestep.hardware.card import simulated_card
from acestep.knobs import Variant
from acestep.limits import machine
from acestep.limits.plan import AS_THE_TIER_SAYS
from acestep.tiers import Tier, TierTable, load_tiers
from acestep.units import MIB
from calibrate.explain.origin import explain
from calibrate.explain.sources import records_in
from calibrate.files import pretty_json
from calibrate.table.merge import build_table, prove, tier_of
from calibrate.table.policy import budget_bytes, load_policy
from ci.cells import certified_cells
from ci.judge_table import table_findings
from tests.fakes import Hungry, measured
from tests.guides import reaching, simulated

POLICY = load_policy()
LINUX = simulated()
WINDOWS = measured(Hungry(40 * MIB), system=System.WINDOWS)
TABLE = build_table([LINUX, WINDOWS], POLICY)
TURBO = TABLE.variants[Variant.TURBO]


def promise(tier: Tier) -> Tier:
    """A tier without where its numbers come from."""
    return msgspec.structs.replace(tier, evidence={})


def test_a_table_of_linux_records_alone_is_what_it_was() -> None:
    table = build_table([LINUX], POLICY)
    assert b"windows" not in msgspec.json.encode(table.variants)
    assert TURBO.tiers == table.variants[Variant.TURBO].tiers


def test_windows_has_a_row_exactly_where_its_records_prove_another_promise() -> None:
    rows = [prove(WINDOWS, decided, POLICY, Variant.TURBO) for decided in POLICY.tiers]
    proven = {row.decided.id: promise(tier_of(row, POLICY)) for row in rows if row is not None}
    assert TURBO.windows
    assert len(TURBO.windows) < len(TURBO.tiers)
    on_windows = TURBO.on(System.WINDOWS)
    assert {tier.id: promise(tier) for tier in on_windows.tiers} == proven
    own = {tier.id for tier in TURBO.windows}
    assert own == {tier.id for tier in TURBO.tiers if proven[tier.id] != promise(tier)}
    assert TURBO.on(System.LINUX).tiers == TURBO.tiers


def test_the_order_of_the_records_changes_nothing(tmp_path: Path) -> None:
    assert build_table([WINDOWS, LINUX], POLICY) == TABLE
    path = tmp_path / "generated_tiers.json"
    path.write_text(pretty_json(TABLE), encoding="utf-8")
    assert load_tiers(path) == TABLE


def test_a_plan_follows_the_promises_of_its_own_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers_module, "_table_in_force", lambda: TABLE)
    lowered = TURBO.windows[0]
    linux = next(tier for tier in TURBO.tiers if tier.id == lowered.id)
    card = simulated_card(lowered.certified_gib)
    for system, row in (("linux", linux), ("win32", lowered), ("darwin", linux)):
        monkeypatch.setattr(budgets_module.sys, "platform", system)
        plan = machine.plan_of_card(AS_THE_TIER_SAYS, card)
        assert (plan.offload, plan.frontier, plan.lm_models) == (row.offload, row.frontier, row.lm_models)


def test_the_gate_probes_the_cells_of_windows_under_their_own_caps() -> None:
    cells, missing = certified_cells(TABLE, POLICY, [LINUX, WINDOWS])
    assert missing == []
    of_windows = [cell for cell in cells if cell.system is System.WINDOWS]
    assert {cell.tier for cell in of_windows} == {tier.id for tier in TURBO.windows}
    assert all(cell.state.startswith("windows.") for cell in of_windows)
    certified = {tier.id: tier.certified_gib for tier in TURBO.tiers}
    for cell in of_windows:
        assert cell.probe in WINDOWS.probes
        assert cell.probe.cap_bytes == budget_bytes(certified[cell.tier], POLICY, System.WINDOWS)


def test_without_its_records_a_promise_of_windows_has_no_proof() -> None:
    _, missing = certified_cells(TABLE, POLICY, [LINUX])
    assert {finding.tier for finding in missing} == {tier.id for tier in TURBO.windows}


def shorter(tier: Tier) -> Tier:
    """A tier that promises nothing without a language model beyond one minute."""
    return reaching(tier, {"1": 60, "2": 0, "4": 0, "8": 0})


def with_windows(*rows: Tier) -> TierTable:
    return msgspec.structs.replace(TABLE, variants={Variant.TURBO: msgspec.structs.replace(TURBO, windows=rows)})


def test_what_windows_loses_against_the_base_is_found_and_named() -> None:
    worse = with_windows(shorter(TURBO.windows[0]), *TURBO.windows[1:])
    found = list(table_findings(TABLE, worse))
    assert found
    assert all(finding.field.startswith("windows.") for finding in found)
    assert not list(table_findings(TABLE, TABLE))
    unlisted = next(tier for tier in TURBO.tiers if tier.id not in {row.id for row in TURBO.windows})
    assert list(table_findings(TABLE, with_windows(*TURBO.windows, shorter(unlisted))))


def test_the_first_table_that_says_what_holds_on_windows_takes_nothing_away() -> None:
    assert not list(table_findings(build_table([LINUX], POLICY), TABLE))


def test_a_cell_of_windows_is_explained_with_a_command_for_windows(tmp_path: Path) -> None:
    (tmp_path / "measurements").mkdir()
    for name, record in (("linux", LINUX), ("windows", WINDOWS)):
        (tmp_path / "measurements" / f"{name}.json").write_text(pretty_json(record), encoding="utf-8")
    row = TURBO.windows[0]
    table = TABLE.on(System.WINDOWS)
    (cell,) = explain(table, POLICY, records_in(tmp_path), "turbo", row.id, "frontier.without_lm.1").cells
    assert cell.evidence.record == WINDOWS.digest
    assert cell.evidence.kind is EvidenceKind.SIMULATED
    probes = [probe for probe in (cell.fits, cell.fails) if probe is not None]
    assert probes
    assert all("--os windows" in probe.repeat for probe in probes)


def test_a_row_of_windows_without_a_tier_is_refused() -> None:
    with pytest.raises(ValueError, match="no tier"):
        with_windows(msgspec.structs.replace(TURBO.windows[0], id="tier9"))


def test_the_guide_lists_what_windows_loses_and_nothing_where_it_is_the_same() -> None:
    from calibrate.report.guide import Guide
    from calibrate.report.words import words_of

    def rows(table: TierTable) -> list[tuple[str, ...]]:
        guide = Guide(words=words_of("en"), table=table, policy=POLICY, records=(LINUX,))
        return [tuple(row) for row in guide.windows_rows()[1:]]

    told = rows(TABLE)
    assert [row[1] for row in told] == [words_of("en").tier(tier) for tier in TURBO.windows]
    assert all(here != there for *_, here, there in told)
    assert rows(build_table([LINUX], POLICY)) == []
    # Models of which the same differs are one row.
    both = msgspec.structs.replace(TABLE, variants={**TABLE.variants, Variant.XL_TURBO: TURBO})
    assert rows(both) == [("`turbo`, `xl-turbo`", *row[1:]) for row in told]
    of_the_first = msgspec.structs.replace(TURBO, windows=TURBO.windows[:1])
    apart = msgspec.structs.replace(TABLE, variants={**TABLE.variants, Variant.XL_TURBO: of_the_first})
    assert [row[0] for row in rows(apart)] == ["`turbo`, `xl-turbo`", *["`turbo`"] * (len(told) - 1)]
