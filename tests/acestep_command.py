"""The `acestep` command in a test's own process: a fixture that a test file takes by giving it its name."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from acestep import tiers
from acestep.cli.console import run_click
from acestep.cli.main import cli

FIXTURE = Path(__file__).parent / "fixtures" / "tiers.json"

Command = Callable[..., SimpleNamespace]


def stand_in_for_models(monkeypatch: pytest.MonkeyPatch, run_generate: Callable[..., dict[str, Any]]) -> ModuleType:
    """All models count as present; `run_generate` is the part that loads models."""
    module = ModuleType("acestep.api")
    module.run_generate = run_generate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.api", module)
    monkeypatch.setattr("acestep.cli.main.require", lambda model, checkpoints: None)
    return module


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `acestep` in this process with a table of our own and no card."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)
    monkeypatch.delenv("MAX_MPS_VRAM", raising=False)

    def call(*arguments: str, table: Path = FIXTURE) -> SimpleNamespace:
        monkeypatch.setattr(tiers, "data_file", lambda name: table)
        tiers._table_in_force.cache_clear()
        try:
            code = run_click(cli, arguments)
        finally:
            tiers._table_in_force.cache_clear()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call
