"""Commands on virtual cards that fail: the exit code, the one JSON document, and what a musician reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from acestep.errors import Exit
from calibrate.campaign.journal import journal_path
from calibrate.probes.virtual_marks import virtual_marks
from tests.virtual.processes import ROOT, bare_environ, running
from virtual_card.card import DRIVER, GIB, UUID_HEAD, VirtualCard
from virtual_card.controls import Control
from virtual_card.machine import RunningMachine

CARDS = (VirtualCard(board_bytes=8 * GIB),)


def ran(machine: RunningMachine, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """A program of ours on the machine."""
    command = [sys.executable, "-m", *map(str, arguments)]
    environ = {**machine.environ(bare_environ()), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=500)


def song(machine: RunningMachine, folder: Path) -> "subprocess.CompletedProcess[str]":
    asked = ("--caption", "rain", "--model", "tiny", "--duration", 5, "--no-think", "--no-compile")
    return ran(machine, "acestep", "generate", *asked, "--json", "--out", folder)


@pytest.mark.parametrize("fault", [Control.FAIL_LAUNCH, Control.LOSE_AT_LAUNCH])
def test_a_card_that_fails_in_a_song_ends_the_command_with_5_and_one_document(tmp_path: Path, fault: Control) -> None:
    with running(cards=CARDS) as machine:
        machine.controls.set(fault, 40)
        done = song(machine, tmp_path)
    assert done.returncode == Exit.RUN_FAILED, done.stderr
    assert json.loads(done.stdout)["error"]["exit_code"] == Exit.RUN_FAILED
    assert "The card stopped working" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_allocation_that_failed_and_was_tried_again_is_not_told_by_torch(tmp_path: Path) -> None:
    with running(cards=CARDS) as machine:
        machine.controls.set(Control.FAIL_ALLOCATION, 2)
        done = song(machine, tmp_path)
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["songs"]
    assert "CUDACachingAllocator" not in done.stderr


@pytest.mark.parametrize(("choice", "kernel"), [("--compile", "triton_"), ("--no-compile", "_snake")])
def test_a_song_launches_kernels_that_triton_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, kernel: str
) -> None:
    asked = ("--caption", "rain", "--model", "tiny", "--duration", 5, "--no-think", choice)
    launches = tmp_path / "launches.txt"
    with running(cards=CARDS) as machine:
        started = machine.environ

        def environ(given: dict[str, str]) -> dict[str, str]:
            return {**started(given), "VIRTUAL_CARD_LAUNCHES": str(launches)}

        monkeypatch.setattr(machine, "environ", environ)
        done = ran(machine, "acestep", "generate", *asked, "--json", "--out", tmp_path)
    assert done.returncode == Exit.OK, done.stderr
    assert any(line.startswith(kernel) for line in launches.read_text().splitlines())


@pytest.mark.parametrize("command", ["doctor", "plan"])
def test_a_driver_too_old_for_torch_is_told_with_what_to_do(command: str) -> None:
    with running(cards=CARDS, cuda_version=12020) as machine:
        done = ran(machine, "acestep", command)
    assert done.returncode == Exit.OK, done.stderr
    assert "is too old for torch" in done.stdout + done.stderr
    assert "Update the driver" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("faults", "verdict", "reason"),
    [
        ({Control.FAIL_LAUNCH: 500}, "crashed", "AcceleratorError: CUDA error: "),
        (
            {Control.VISITOR_BYTES: GIB, Control.VISITOR_FROM: 20, Control.VISITOR_UNTIL: 1 << 40},
            "tainted",
            "were taken by a process that the driver does not list",
        ),
    ],
)
def test_a_probe_without_an_answer_ends_the_campaign_and_its_reason_is_kept(
    tmp_path: Path, faults: dict[Control, int], verdict: str, reason: str
) -> None:
    record = tmp_path / "record.json"
    with running(cards=CARDS) as machine:
        for control, value in faults.items():
            machine.controls.set(control, value)
        done = ran(machine, "calibrate", "run", "--device", "cuda", "--tiers", 4, "--lm", "none", "-o", record)
    assert done.returncode == Exit.NOT_MEASURED, done.stderr
    assert f"ended {verdict}" in done.stderr
    assert reason in done.stderr
    assert ("idle card" in done.stderr) == (verdict == "tainted")
    assert not record.exists()
    [last] = journal_path(record).read_text(encoding="utf-8").splitlines()[-1:]
    assert reason in last


def test_the_marks_that_records_are_searched_for_are_those_of_the_card() -> None:
    card = VirtualCard()
    marks = {"name": card.shown_name, "uuid": f"GPU-{UUID_HEAD}-0000-000000000860", "driver": DRIVER}
    assert virtual_marks(**marks) == marks
    assert virtual_marks(name="", uuid=f"MIG-{UUID_HEAD}", driver="").keys() == {"uuid"}
