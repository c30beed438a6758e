"""A waiver allows one intended loss until a day, and nothing else."""

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.knobs import Variant
from acestep.tiers import TierTable
from acestep.units import GIB, MIB
from calibrate.table.policy import load_policy
from calibrate.table.waivers import FLOOR, Waiver, load_waivers
from ci.checkout import CHECKOUT
from ci.findings import GATE_RULES, Finding, GateVerdict
from ci.judge import judge
from ci.judge_waivers import brought_findings, stale_findings, unbounded_findings
from ci.promises import TABLE_FILE
from tests.fakes import AnalyticProber, Hungry
from tests.gate_faults import FIELDS, Fault
from tests.gate_house import TODAY, House, good, judged, stopping

WAIVED = {"variant": "turbo", "tier": "tier5", "why": "The new sampler keeps one more tensor.", "until": "2030-06-30"}


def waived(
    house: House, place: Path, prober: AnalyticProber | None = None, *, granted: bool = False, **entry: Any
) -> tuple[GateVerdict, set[str]]:
    """The verdict on a folder with a waiver, which may have been there before the change."""
    house.waivers = [WAIVED | entry]
    base = good()
    base.waivers = house.waivers if granted else []
    judgement = judged(house, place, base=base, prober=prober, table_only=prober is None)
    return judgement.verdict, stopping(judgement)


def offloading() -> House:
    house = good()
    next(tier for tier in house.tiers if tier["id"] == "tier5")["offload"] = "cpu+dit"
    return house


def test_an_intended_regression_passes_with_a_waiver_and_stays_in_the_report(tmp_path: Path) -> None:
    found = waived(offloading(), tmp_path, granted=True, field="offload", value="cpu+dit")
    assert found == (GateVerdict.OK, set())


@pytest.mark.parametrize(
    "before",
    [None, {"value": "stream"}, {"until": "2030-06-01"}, {"until": "2030-05-31"}, {"tier": "tier6a"}],
    ids=["no waiver", "another value", "another day", "a day that has passed", "another tier"],
)
def test_a_change_does_not_allow_itself_what_it_makes_worse(before: dict[str, str] | None, tmp_path: Path) -> None:
    entry = WAIVED | {"field": "offload", "value": "cpu+dit"}
    house, base = offloading(), good()
    house.waivers = [entry]
    base.waivers = [] if before is None else [entry | before]
    judgement = judged(house, tmp_path, base=base, table_only=True)
    assert (judgement.verdict, stopping(judgement)) == (GateVerdict.INCONCLUSIVE, {"G208"})
    (lost,) = (finding for finding in judgement.findings if finding.id == "G506")
    assert lost.level == "notice"


def test_a_waiver_may_get_another_reason(tmp_path: Path) -> None:
    house, base = offloading(), good()
    house.waivers = [WAIVED | {"field": "offload", "value": "cpu+dit"}]
    base.waivers = [house.waivers[0] | {"why": "The same in other words."}]
    assert judged(house, tmp_path, base=base, table_only=True).verdict is GateVerdict.OK


@pytest.mark.parametrize("end", ["floor", "2030-06-30"])
def test_a_waiver_may_end_earlier(end: str, tmp_path: Path) -> None:
    merged = offloading()
    merged.waivers = [WAIVED | {"field": "offload", "value": "cpu+dit", "until": end}]
    for name, base in (("taken away", good()), ("merged", offloading())):
        base.waivers = merged.waivers
        head = offloading()
        head.waivers = [merged.waivers[0] | {"until": "2030-06-15"}]
        assert judged(head, tmp_path / name, base=base, table_only=True).verdict is GateVerdict.OK


@pytest.mark.parametrize(
    ("stricter", "brought"),
    [
        ({}, False),
        ({"value": 2 * GIB - MIB}, False),
        ({"value": 2 * GIB + MIB}, True),
        ({"until": "2030-06-29"}, False),
        ({"until": "2030-07-01"}, True),
        ({"until": "floor"}, True),
        ({"value": 2 * GIB - MIB, "until": "2030-07-01"}, True),
        ({"tier": "tier6a"}, True),
    ],
)
def test_only_a_waiver_that_allows_more_or_longer_is_brought_by_the_change(
    stricter: dict[str, Any], brought: bool
) -> None:
    field = "denoise.peak_allocated_bytes.without_lm"
    there = msgspec.convert(WAIVED | {"field": field, "value": 2 * GIB}, Waiver)
    now = msgspec.structs.replace(there, why="The same in other words.", **stricter)
    grown = Finding(id="G302", message="", variant="turbo", tier=now.tier, field=field, after=GIB)
    table = msgspec.convert(good().table, TierTable)
    assert bool(brought_findings([grown], table, [now], [there], TODAY)) is brought
    assert bool(stale_findings([], table, [now], [there], TODAY, code_judged=True)) is brought


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"until": "2030-05-31"}, "G601"),
        ({"value": "stream"}, "G602"),
        ({"tier": "tier6a"}, "G602"),
        ({"variant": "base"}, "G602"),
        ({"field": "quantization"}, "G602"),
    ],
)
def test_a_waiver_of_something_else_or_of_yesterday_covers_nothing(
    entry: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    said = {"field": "offload", "value": "cpu+dit"} | entry
    assert waived(offloading(), tmp_path, **said) == (GateVerdict.REGRESSED, {"G506", rule})


def test_a_waiver_that_nothing_needs_is_stale(tmp_path: Path) -> None:
    assert waived(good(), tmp_path, field="offload", value="none") == (GateVerdict.REGRESSED, {"G602"})


def test_a_waiver_outlives_the_merge_of_what_it_allowed_and_no_longer(tmp_path: Path) -> None:
    merged = offloading()
    merged.waivers = [WAIVED | {"field": "offload", "value": "cpu+dit"}]
    assert judged(merged, tmp_path / "next", base=merged, table_only=True).verdict is GateVerdict.OK
    better = good()
    better.waivers = merged.waivers
    assert stopping(judged(better, tmp_path / "better", base=merged, table_only=True)) == {"G602"}


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in FIELDS])
def test_a_waiver_of_any_field_outlives_the_merge_and_no_longer(fault: Fault, tmp_path: Path) -> None:
    merged = good()
    fault.change(merged)
    lost = [finding for finding in judged(merged, tmp_path / "lost", table_only=True).findings if finding.tier]
    merged.waivers = [
        WAIVED
        | {
            "tier": finding.tier,
            "field": finding.field,
            "value": str(finding.after) if isinstance(finding.after, bool) else finding.after,
        }
        for finding in lost
        if GATE_RULES[finding.id].verdict is GateVerdict.REGRESSED
    ]
    first = judged(merged, tmp_path / "first", table_only=True)
    assert {finding.id for finding in first.findings if finding.level == "error"} <= {"G208", "G501"}
    assert stopping(judged(merged, tmp_path / "next", base=merged, table_only=True)) == set()
    better = good()
    better.waivers = merged.waivers
    assert ("G602" in stopping(judged(better, tmp_path / "better", base=merged, table_only=True))) is bool(lost)


def test_the_tables_of_this_repository_need_all_their_waivers() -> None:
    table = CHECKOUT / "tiers" / TABLE_FILE
    # Whether they have ended is for the gate to say on the day.
    ends = [waiver.until for waiver in load_waivers(table.parent / "waivers.json") if waiver.until != FLOOR]
    day = min([TODAY, *map(datetime.date.fromisoformat, ends)])
    judgement = judge(CHECKOUT, table, None, day, table_only=True, progress=print)
    assert (judgement.verdict, stopping(judgement)) == (GateVerdict.OK, set())


def test_a_waiver_of_a_variant_that_is_not_in_the_table_is_left_alone(tmp_path: Path) -> None:
    house = good()
    house.waivers = [WAIVED | {"variant": "xl-turbo", "field": "offload", "value": "stream"}]
    assert judged(house, tmp_path, base=house, table_only=True).verdict is GateVerdict.OK


def test_bytes_are_waived_up_to_a_number(tmp_path: Path) -> None:
    hungry = Hungry(400 * MIB)
    finding = next(f for f in judged(good(), tmp_path / "plain", prober=hungry).findings if f.id == "G302")
    assert isinstance(finding.after, int)
    for number, (value, excused) in enumerate(((finding.after + MIB, True), (finding.after - MIB, False))):
        house = good()
        house.waivers = [WAIVED | {"tier": finding.tier, "field": finding.field, "value": value}]
        found = judged(house, tmp_path / str(number), prober=hungry).findings
        assert (finding.field in {f.field for f in found if f.level == "notice" and f.tier == finding.tier}) is excused


def test_a_waiver_of_code_that_is_not_simulated_is_neither_used_nor_unused(tmp_path: Path) -> None:
    house = good()
    house.waivers = [WAIVED | {"field": "denoise.peak_allocated_bytes.without_lm", "value": 2 * GIB}]
    assert "G602" in stopping(judged(house, tmp_path / "all"))
    assert "G602" not in stopping(judged(house, tmp_path / "none", variants=[Variant.XL_TURBO]))


CODE_FIELDS = (
    "denoise.peak_allocated_bytes.without_lm",
    "smallest_cap_bytes.with_lm",
    "denoise.flops.without_lm",
    "steps.denoise",
    "plan.8.max_batch.with_lm",
    "scenario.a_large_card.3.denoise.peak_allocated_bytes",
    "scenario.a_large_card.held_bytes",
    "scenario.a_large_card.models",
    "scenario.a_large_card.1.batch",
)


@pytest.mark.parametrize("field", CODE_FIELDS)
def test_a_waiver_of_what_running_the_code_finds_outlives_the_merge(field: str) -> None:
    waiver = msgspec.convert(WAIVED | {"tier": "any", "field": field, "value": 2 * MIB}, Waiver)
    table = msgspec.convert(good().table, TierTable)
    for granted, code_judged, stale in (([waiver], True, []), ([waiver], False, []), ([], False, []), ([], True, [1])):
        found = stale_findings([], table, [waiver], granted, TODAY, code_judged=code_judged)
        assert len(found) == len(stale)


def test_memory_of_a_scenario_is_waived_up_to_what_the_card_has() -> None:
    field = "scenario.a_large_card.3.denoise.peak_allocated_bytes"
    for value, rules in ((2 * GIB, []), (64 * GIB, ["G603"])):
        waiver = msgspec.convert(WAIVED | {"tier": "any", "field": field, "value": value}, Waiver)
        assert [finding.id for finding in unbounded_findings([waiver], load_policy())] == rules


def test_nothing_that_is_not_valid_can_be_waived(tmp_path: Path) -> None:
    house = good()
    house.table["generated_from"]["policy"] = "sha256:" + "7" * 64
    verdict, rules = waived(house, tmp_path, field="generated_from.policy", value="sha256:" + "7" * 64)
    assert (verdict, rules) == (GateVerdict.INVALID, {"G103", "G602"})


def test_a_day_is_the_last_day(tmp_path: Path) -> None:
    assert datetime.date.fromisoformat("2030-06-30") > TODAY
    found = waived(offloading(), tmp_path, granted=True, field="offload", value="cpu+dit", until="2030-06-01")
    assert found[0] is GateVerdict.OK


@pytest.mark.parametrize("tier", ["tier5", "any"])
@pytest.mark.parametrize(("value", "red"), [(2 * GIB, False), (64 * GIB, True)])
def test_no_waiver_allows_more_than_the_card_has(value: int, red: bool, tier: str, tmp_path: Path) -> None:
    house = good()
    field = "denoise.peak_allocated_bytes.without_lm"
    house.waivers = [WAIVED | {"tier": tier, "field": field, "value": value, "until": "floor"}]
    assert ("G603" in stopping(judged(house, tmp_path, table_only=True))) is red
