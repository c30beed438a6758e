"""Every fault between a request and its songs, in a copy of the tree, which plays the scenario that shows it."""

import shutil
from contextlib import closing
from functools import cache
from pathlib import Path

import click
import pytest

from acestep.tiers import load_tiers
from ci.findings import GATE_RULES
from ci.head_process import HeadSimulation, head_code
from ci.judge_scenarios import scenario_findings
from ci.scenarios.all_scenarios import SCENARIOS
from ci.scenarios.scenario import Scenario, ScenarioResult
from ci.side_by_side import GATE_WORKER, LOCAL_PLACES
from ci.tolerance import Tolerance
from tests.code_faults.fault import CodeFault
from tests.code_faults.scenarios import SCENARIO_FAULTS
from tests.gate_trees import ROOT, put_in

pytestmark = pytest.mark.soak
SHARE = Tolerance().peak_share
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def made(scenario: Scenario, tree: Path, seed: int) -> ScenarioResult:
    """What comes of a scenario that the code of a tree plays."""
    with (
        head_code(tree) as search,
        closing(HeadSimulation(LOCAL_PLACES.start([*GATE_WORKER, str(seed)], search))) as simulation,
    ):
        return simulation.outcome_of(scenario, load_tiers())


@cache
def made_here(name: str) -> ScenarioResult:
    return made(BY_NAME[name], ROOT, 0)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_tree_as_it_is_does_the_same_again(name: str) -> None:
    again = made(BY_NAME[name], ROOT, 1)
    assert not list(scenario_findings(BY_NAME[name], made_here(name), again, 0.0))


def test_the_limits_and_the_guard_act_in_them() -> None:
    cut = made_here("more than the table allows").made
    assert [(call.batch, call.duration_s) for call in cut] == [(2, 25.0), (1, 40.0), (1, 3.0)]
    shared = made_here("a card that others use").made[0]
    assert 1 < shared.songs_per_pass < shared.batch


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in SCENARIO_FAULTS])
def test_every_fault_is_red_with_its_stage_and_component(fault: CodeFault, tmp_path: Path) -> None:
    for name in ("acestep", "tiers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    put_in(tmp_path, fault)
    scenario = BY_NAME[fault.scenario]
    found = list(scenario_findings(scenario, made_here(scenario.name), made(scenario, tmp_path, 0), SHARE))
    named = [f for f in found if (f.stage, f.component) == (fault.stage, fault.component) and f.id in fault.rules]
    assert named, found
    assert {GATE_RULES[finding.id].verdict for finding in named} == {fault.verdict}
    click.echo(f"\n{fault.name}: {len(named)} of {len(found)} findings name its cause")
