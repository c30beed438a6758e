"""The gate's processes: findings keep their order, and all processes end with the gate."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acestep.errors import Exit
from ci.cells import GateCell, certified_cells
from ci.findings import Finding
from ci.promises import stored_promises
from ci.side_by_side import LOCAL_PLACES, SimulationTask, cell_tasks, simulated_findings
from tests.gate_house import good
from tests.processes import has_ended, require_end

ROOT = Path(__file__).parents[2]

STAND_IN = """
import os, sys, time
from pathlib import Path
from calibrate.campaign import probers
from calibrate.verdict import Verdict
from ci.head_process import simulate
from tests.fakes import result

log, groups = Path(sys.argv[1]), set()

class StandIn:
    def probe(self, knobs, workload, cap_bytes):
        if (group := (knobs.offload, knobs.quantization)) not in groups:
            groups.add(group)
            with log.open("a") as file:
                file.write(f"{os.getpid()}\\n")
            DOES
        return result(Verdict.OOM, workload, cap_bytes, peak=1)

    def smallest_caps(self, knobs, workload):
        return {"denoise": 2**40, "total": 2**40}

probers.simulation = lambda **_: StandIn()
simulate(0)
"""
"""Instead of the simulated card; writes down its process with every group that it begins."""

GATE = """
import click, sys
from pathlib import Path
from acestep.cli.console import run_and_exit
from ci.side_by_side import simulated_findings
from tests.unit.test_gate_processes import tasks

@click.command()
def gate():
    list(simulated_findings(tasks(Path(place)), Path.cwd(), command=command))

_, place, *command = sys.argv
sys.argv[1:] = []
run_and_exit(gate)
"""
"""The gate, as far as it probes."""


def stand_in(log: Path, does: str) -> tuple[str, ...]:
    """The command of a process that does something before it answers."""
    return (sys.executable, "-c", STAND_IN.replace("DOES", does), str(log))


def certified(place: Path) -> list[GateCell]:
    """The cells of a good table; they make more groups than there are processes."""
    promised = stored_promises(good().written(place))
    assert promised.policy is not None
    cells, _ = certified_cells(promised.table, promised.policy, promised.records)
    assert len({(cell.probe.knobs.offload, cell.probe.knobs.quantization) for cell in cells}) > LOCAL_PLACES.most
    return cells


def tasks(place: Path) -> list[SimulationTask]:
    return cell_tasks(certified(place), 0.02, lambda _: None)


def found_by(place: Path, does: str) -> list[Finding]:
    return list(simulated_findings(tasks(place), ROOT, command=stand_in(place / "log", does)))


@pytest.fixture
def probing(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A gate in a process group of its own whose processes are all at work, for a minute each, and these processes."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", GATE, str(tmp_path), *stand_in(log, "time.sleep(60)")]
    gate = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield gate, [int(line) for line in begun(log, gate)]
    finally:
        gate.kill()
        gate.communicate()


def begun(log: Path, gate: subprocess.Popen[str]) -> list[str]:
    """The processes that have begun a group, as soon as all have."""
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text(encoding="utf-8").count("\n") < LOCAL_PLACES.most:
        assert gate.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return log.read_text(encoding="utf-8").split()


def interrupt_the_group(gate: int) -> None:
    os.killpg(gate, signal.SIGINT)


def interrupt_it_alone(gate: int) -> None:
    os.kill(gate, signal.SIGINT)


@pytest.mark.parametrize("interrupt", [interrupt_the_group, interrupt_it_alone])
def test_an_interrupted_gate_ends_at_once_with_all_it_started(
    probing: tuple[subprocess.Popen[str], list[int]], interrupt: Callable[[int], None], tmp_path: Path
) -> None:
    gate, processes = probing
    interrupt(gate.pid)
    _, told = gate.communicate(timeout=10)
    assert gate.returncode == Exit.INTERRUPTED
    assert told.strip() == "interrupted"
    assert all(has_ended(process) for process in processes)
    assert len((tmp_path / "log").read_text(encoding="utf-8").split()) == LOCAL_PLACES.most


def test_killing_the_gate_ends_its_processes(probing: tuple[subprocess.Popen[str], list[int]]) -> None:
    gate, processes = probing
    gate.kill()
    gate.wait()
    require_end(processes)


def test_the_order_of_findings_does_not_depend_on_timing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    slow_first = found_by(tmp_path / "slow", "time.sleep(0.3 if log.read_text().count('\\n') == 1 else 0)")
    assert slow_first == found_by(tmp_path / "even", "pass")
    assert len(slow_first) == len(certified(tmp_path / "again"))


def test_a_dead_process_fails_the_gate_and_keeps_earlier_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = found_by(tmp_path, "log.read_text().count('\\n') >= 3 and os.kill(os.getpid(), 9)")
    assert [finding.id for finding in found[-1:]] == ["G203"]
    assert {finding.id for finding in found[:-1]} == {"G301"}
    assert "-9" in found[-1].message
