"""Runs of `calibrate run` on a card that is a formula, ended at a chosen write of the journal."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acestep.budgets import System
from acestep.cli.console import run_click
from acestep.hardware.card import Card
from calibrate import fingerprint
from calibrate.campaign import journal, probers
from calibrate.campaign.journal import journal_path
from calibrate.cli import cli
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.base import Executor
from calibrate.probes.base import CapMethod, Simulation
from calibrate.record import measurement as record
from tests.fakes import AnalyticProber

CODE = "0.1.0+tree.0123456789abcdef"
"""Stands for the code that answers: sources may change while a long test runs."""


def run_on(prober: Simulation, output: Path, *arguments: object, code: str = CODE) -> int:
    """The exit code of `calibrate run` with a simulated card of ours."""
    return run_with(SimulationAlone(prober), output, *arguments, code=code)


def run_with(executor: SimulationAlone | CardAlone, output: Path, *arguments: object, code: str = CODE) -> int:
    """The exit code of `calibrate run` with an executor of ours, which stays open."""

    @contextmanager
    def executor_for(device: str, method: CapMethod, system: System, card: Card) -> Iterator[Executor]:
        yield executor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probers, "executor_for", executor_for)
        for module in (fingerprint, record):
            patch.setattr(module, "code_version", lambda: code)
        return run_click(cli, ["run", "-o", str(output), *map(str, arguments)])


def kill_at(write: int, share: float, output: Path, *arguments: object) -> bool:
    """Run in a process that kills itself in the `write`-th write, a share of it done; False if it ended before."""
    # What earlier tests mapped and left as garbage would be counted again for the child, and may be more than there is.
    gc.collect()
    child = os.fork()
    if child == 0:
        try:
            journal.os = Killing(write, share)  # type: ignore[attr-defined, assignment]
            run_on(AnalyticProber(), output, *arguments)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


class Killing:
    """The operating system, up to a write that does not return."""

    def __init__(self, write: int, share: float) -> None:
        self._left = write
        self._share = share

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def pwrite(self, file: int, line: bytes, place: int) -> int:
        if self._left == 0:
            os.pwrite(file, line[: int(len(line) * self._share)], place)
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return os.pwrite(file, line, place)


def journal_is_gone(output: Path) -> bool:
    """Whether nothing but the measurement file is left."""
    return not journal_path(output).exists()
