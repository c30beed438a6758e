"""Every fault that was put into a table, a policy or a record is red, with the id of its rule; no change is green."""

from pathlib import Path

import pytest

from acestep.errors import Exit
from ci.findings import GATE_RULES, GateVerdict
from tests.fakes import AnalyticProber
from tests.gate_faults import FIELDS, FILES, POLICIES, RECORDS, Fault
from tests.gate_house import good, judged, stopping

IN_TABLES = [*FIELDS, *FILES, *POLICIES]
IN_ALL = [*RECORDS, FIELDS[0], FILES[0], POLICIES[0]]


def named(faults: list[Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in faults])


def test_no_change_is_green_and_says_what_it_rests_on(tmp_path: Path) -> None:
    judgement = judged(good(), tmp_path)
    assert (judgement.verdict, stopping(judgement)) == (GateVerdict.OK, set())
    assert judgement.compared.tiers == 8
    assert judgement.compared.cells > 8
    assert judgement.compared.records == 1


def test_a_table_alone_is_compared_without_a_probe(tmp_path: Path) -> None:
    prober = AnalyticProber()
    judgement = judged(good(), tmp_path, prober=prober, table_only=True)
    assert judgement.verdict is GateVerdict.OK
    assert prober.asked == []


@named(IN_TABLES)
def test_a_fault_in_the_table_or_the_policy_is_red_with_its_rule(fault: Fault, tmp_path: Path) -> None:
    house = good()
    fault.change(house)
    judgement = judged(house, tmp_path, table_only=True)
    assert judgement.verdict is fault.verdict
    found = [finding for finding in judgement.findings if finding.id == fault.rule and finding.level == "error"]
    assert any(fault.field in finding.field for finding in found), judgement.findings
    if fault.verdict is GateVerdict.REGRESSED and fault.rule != "G501":
        assert all(finding.before != finding.after and finding.tier for finding in found if finding.field)


@named(IN_ALL)
def test_every_fault_is_red_where_everything_is_judged(fault: Fault, tmp_path: Path) -> None:
    house = good()
    fault.change(house)
    judgement = judged(house, tmp_path)
    assert judgement.verdict is not GateVerdict.OK
    assert fault.rule in stopping(judgement)


@named(FIELDS)
def test_what_is_worse_one_way_is_no_regression_the_other(fault: Fault, tmp_path: Path) -> None:
    house = good()
    fault.change(house)
    judgement = judged(good(), tmp_path, base=house, table_only=True)
    assert fault.rule not in stopping(judgement)


def test_there_are_faults_enough_and_none_twice() -> None:
    names = [fault.name for fault in (*IN_TABLES, *RECORDS)]
    assert len(set(names)) == len(names) >= 30


def test_ids_and_exit_codes_are_a_promise() -> None:
    """Workflows and waivers build on them: add new ones, and leave these."""
    assert {verdict.value: int(verdict.exit) for verdict in GateVerdict} == {
        "ok": Exit.OK,
        "regressed": 1,
        "invalid": 3,
        "inconclusive": 4,
    }
    assert all(rule.id == name for name, rule in GATE_RULES.items())
