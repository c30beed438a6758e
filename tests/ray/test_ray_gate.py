"""The gate's cells on a real Ray cluster of this machine: the findings are those of local processes."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from acestep.errors import Exit
from calibrate.executors.ray_cluster import RayCluster
from ci.cells import GateCell, certified_cells
from ci.findings import Finding
from ci.head_on_ray import RayPlaces
from ci.promises import stored_promises
from ci.side_by_side import LOCAL_PLACES, cell_tasks, simulated_findings
from tests.code_faults import CODE_FAULTS
from tests.command_lines import ROOT
from tests.gate_house import good
from tests.gate_trees import gated, one_tier_house, one_tier_tree, put_in
from tests.ray.clusters import LocalCluster

FAULT = next(fault for fault in CODE_FAULTS if fault.name == "the text encoder is no longer offloaded")

STAND_IN = """
import sys, time
from acestep.request import DecodePath
from calibrate.campaign import probers
from calibrate.probes.base import ProbeResult
from calibrate.verdict import Verdict
from ci.head_process import simulate

class StandIn:
    def probe(self, knobs, workload, cap_bytes):
        time.sleep(SECONDS)
        return ProbeResult(
            verdict=Verdict.OOM, cap_bytes=cap_bytes, stages=(), songs_per_pass=workload.batch,
            decode_path=DecodePath.GPU, seconds=0.0,
        )

    def smallest_caps(self, knobs, workload):
        return {"denoise": 2**40, "total": 2**40}

probers.simulation = lambda **_: StandIn()
simulate(int(sys.argv[-1]))
"""
"""Instead of the simulated card, with nothing of the tests, which are not sent along."""


def stand_in(seconds: float) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", STAND_IN.replace("SECONDS", str(seconds)))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[GateCell]:
    promised = stored_promises(good().written(tmp_path_factory.mktemp("promised")))
    assert promised.policy is not None
    found, _ = certified_cells(promised.table, promised.policy, promised.records)
    return found


OWN_CORES = 3
"""Cores of the nodes that no test takes away."""

NOTICED_S = 30
"""Seconds in which Ray notices that nodes of an earlier test are gone."""


@pytest.fixture
def places(cluster: LocalCluster) -> Iterator[RayPlaces]:
    with closing(RayCluster(cluster.address)) as connected:
        places, until = RayPlaces(connected), time.monotonic() + NOTICED_S
        while places.most != OWN_CORES and time.monotonic() < until:
            time.sleep(0.2)
        yield places


def in_order(findings: Iterator[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (finding.tier, finding.field, finding.id))


def test_every_cell_apart_has_the_findings_of_local_processes(cells: list[GateCell], places: RayPlaces) -> None:
    apart = cell_tasks(cells, 0.02, lambda _: None, apart=places.each_cell_apart)
    assert len(apart) == len(cells) > len(cell_tasks(cells, 0.02, lambda _: None))
    assert places.most == OWN_CORES
    spread = in_order(simulated_findings(apart, ROOT, command=stand_in(0), places=places))
    together = cell_tasks(cells, 0.02, lambda _: None)
    assert spread == in_order(simulated_findings(together, ROOT, command=stand_in(0), places=LOCAL_PLACES))
    assert len(spread) >= len(cells)


def test_a_machine_that_is_lost_in_mid_run_loses_no_finding(
    cells: list[GateCell], places: RayPlaces, cluster: LocalCluster
) -> None:
    told: list[str] = []
    lost = threading.Event()
    node = cluster.add("A100", cpus=2)

    def progress(sentence: str) -> None:
        told.append(sentence)
        if len(told) == 6 and not lost.is_set():
            lost.set()
            cluster.remove(node)

    tasks = cell_tasks(cells, 0.02, progress, apart=True)
    found = in_order(simulated_findings(tasks, ROOT, command=stand_in(0.05), places=places))
    assert lost.is_set()
    quiet = cell_tasks(cells, 0.02, lambda _: None)
    assert found == in_order(simulated_findings(quiet, ROOT, command=stand_in(0), places=LOCAL_PLACES))


def test_a_process_that_ends_is_told_as_it_is_here(cells: list[GateCell], places: RayPlaces, tmp_path: Path) -> None:
    command = (sys.executable, "-P", "-c", "import sys; sys.exit(3)")
    found = list(simulated_findings(cell_tasks(cells, 0.02, lambda _: None), ROOT, command=command, places=places))
    assert {finding.id for finding in found} == {"G203"}
    assert "has ended on a machine of the cluster" in found[0].message


def test_the_gate_says_of_a_change_what_it_says_here(cluster: LocalCluster, tmp_path: Path) -> None:
    """With the real simulation: one song, and the steps of another, on two of the cluster's nodes."""
    tree = one_tier_tree(tmp_path, one_tier_house(None, seconds=60))
    put_in(tree, FAULT)
    here = gated(tree, "--seed", "5")
    assert here[0] == Exit.REGRESSED
    assert {finding["id"] for finding in here[1]["findings"]} & set(FAULT.rules)
    assert gated(tree, "--seed", "5", "--executor", "ray", "--address", cluster.address) == here
