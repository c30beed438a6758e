"""A campaign over every tier is killed in each write of its journal; `make test` does it at a few."""

from pathlib import Path

import click
import pytest

from acestep.errors import Exit
from tests.fakes import AnalyticProber
from tests.killing import journal_is_gone, kill_at, run_on

pytestmark = pytest.mark.soak
SHARES = (0.0, 0.5, 1.0)


def test_killed_in_any_write_it_ends_with_the_same_bytes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.json"
    assert run_on(AnalyticProber(), whole) == Exit.OK
    write = 0
    while True:
        output = tmp_path / f"{write}.json"
        if not kill_at(write, SHARES[write % len(SHARES)], output):
            break
        assert run_on(AnalyticProber(), output, "--resume") == Exit.OK
        assert output.read_bytes() == whole.read_bytes(), f"killed in write {write}"
        assert journal_is_gone(output)
        output.unlink()
        write += 1
    capfd.readouterr()
    with capfd.disabled():
        click.echo(f"\nkilled in {write} writes, {write} of {write} files the same byte for byte")
