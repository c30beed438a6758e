"""Commands on a card that is a formula: fixtures that a test file imports by name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from acestep import tiers as tiers_module
from acestep.budgets import System
from acestep.cli.console import run_click
from acestep.errors import NotMeasuredError
from acestep.hardware.card import CPU, Card
from acestep.tiers import load_tiers
from acestep.units import MIB
from calibrate.campaign import probers
from calibrate.executors.alone import SimulationAlone
from calibrate.executors.base import Executor
from calibrate.files import pretty_json
from calibrate.probes.base import SIMULATED_CARD, CapMethod
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from tests.fakes import AnalyticProber, Hungry, measured

POLICY = load_policy()
TABLE = build_table([measured()], POLICY)
NO_FLASH = 300 * MIB
"""What a run takes more under Windows, whose PyTorch has no flash kernel."""


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No real card, a formula for the simulated one, and the table made from it in force."""

    def simulation(
        vae_chunk: int = 0,
        capability: object = None,
        system: System = System.LINUX,
        adapters: object = None,
        torch_is: object = None,
    ) -> AnalyticProber:
        return Hungry(NO_FLASH) if system is System.WINDOWS else AnalyticProber()

    def alone_on(device: str, system: System = System.LINUX) -> SimulationAlone:
        if device == "simulated":
            return SimulationAlone(simulation(system=system))
        raise NotMeasuredError("no NVIDIA card was found")

    @contextmanager
    def executor_for(
        device: str, method: CapMethod, system: System = System.LINUX, card: Card = SIMULATED_CARD
    ) -> Iterator[Executor]:
        yield probers.alone_on(device, system=system)

    monkeypatch.setattr(probers, "alone_on", alone_on)
    monkeypatch.setattr(probers, "executor_for", executor_for)
    monkeypatch.setattr(probers, "simulation", simulation)
    monkeypatch.setattr(probers, "detect", lambda _: CPU)
    path = tmp_path / "table" / "generated_tiers.json"
    path.parent.mkdir()
    path.write_text(pretty_json(TABLE), encoding="utf-8")
    in_force = load_tiers(path)
    monkeypatch.setattr(tiers_module, "_table_in_force", lambda: in_force)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(which: click.Command, *arguments: object) -> tuple[int, str, str]:
        code = run_click(which, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
