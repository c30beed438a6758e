"""Commands on virtual cards that fail: the exit code, the one JSON document, and what a musician reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from acestep.errors import Exit
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
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=220)


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


@pytest.mark.parametrize("command", ["doctor", "plan"])
def test_a_driver_too_old_for_torch_is_told_with_what_to_do(command: str) -> None:
    with running(cards=CARDS, cuda_version=12020) as machine:
        done = ran(machine, "acestep", command)
    assert done.returncode == Exit.OK, done.stderr
    assert "is too old for torch" in done.stdout + done.stderr
    assert "Update the driver" in done.stdout + done.stderr


def test_a_probe_that_crashed_ends_the_campaign_with_its_reason(tmp_path: Path) -> None:
    with running(cards=CARDS) as machine:
        machine.controls.set(Control.FAIL_LAUNCH, 500)
        done = ran(
            machine,
            "calibrate",
            "run",
            "--device",
            "cuda",
            "--tiers",
            4,
            "--lm",
            "none",
            "-o",
            tmp_path / "record.json",
        )
    assert done.returncode == Exit.NOT_MEASURED, done.stderr
    assert "ended crashed" in done.stderr
    assert "AcceleratorError: CUDA error: " in done.stderr
    assert "idle card" not in done.stderr


def test_the_marks_that_records_are_searched_for_are_those_of_the_card() -> None:
    card = VirtualCard()
    marks = {"name": card.shown_name, "uuid": f"GPU-{UUID_HEAD}-0000-000000000860", "driver": DRIVER}
    assert virtual_marks(**marks) == marks
    assert virtual_marks(name="", uuid=f"MIG-{UUID_HEAD}", driver="").keys() == {"uuid"}
