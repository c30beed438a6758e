"""Processes on virtual machines, and the machine that the tests' own process is on."""

import os
import subprocess
import sys
from pathlib import Path

from virtual_card.card import GIB, VirtualCard
from virtual_card.machine import RunningMachine, VirtualMachine

ROOT = Path(__file__).parents[2]
SANITIZER = os.environ.get("VIRTUAL_CARD_SANITIZER", "")
CAPABILITIES = ((8, 6), (9, 0), (7, 5), (12, 0))
"""Of the cards 0 to 3 of the tests' own machine, which all have 8 GiB."""


class Shared:
    """The machine of this process."""

    def __init__(self) -> None:
        self.machine: RunningMachine | None = None

    def start(self) -> None:
        cards = tuple(VirtualCard(capability=capability, board_bytes=8 * GIB) for capability in CAPABILITIES)
        self.machine = RunningMachine(VirtualMachine(cards=cards))
        os.environ["VIRTUAL_CARD_LAUNCHES"] = str(self.machine.folder / "launches.txt")
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        self.machine.load()

    def stop(self) -> None:
        if self.machine is not None:
            self.machine.close()


SHARED = Shared()


def started(machine: RunningMachine, code: str, **environ: str) -> "subprocess.Popen[str]":
    """A Python process on the machine that runs `code` after the names of `plain`."""
    command = [sys.executable, "-c", "from tests.virtual.plain import *\n" + code]
    # LeakSanitizer would count what Python itself never frees.
    options = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "report_bugs=1 exitcode=66"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**machine.environ(bare_environ()), **options, **environ},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def printed(machine: RunningMachine, code: str, **environ: str) -> str:
    """What such a process prints; it has to end well and say nothing of a sanitizer's."""
    out, errors = told(machine, code, **environ)
    assert "Sanitizer" not in errors, errors
    return out.strip()


def told(machine: RunningMachine, code: str, **environ: str) -> tuple[str, str]:
    """Its output and its errors, as text."""
    process = started(machine, code, **environ)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"ended with {process.returncode}: {errors}"
    return out, errors


def running(**fields: object) -> RunningMachine:
    """A machine of its own."""
    return RunningMachine(VirtualMachine(**fields), SANITIZER)  # type: ignore[arg-type]


def bare_environ() -> dict[str, str]:
    """The environment without the machine of this process."""
    own = ("VIRTUAL_CARD_", "LD_PRELOAD", "LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH", "CUDA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}
