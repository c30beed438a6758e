"""What is rendered is the same bytes every time, and a stored file that is anything else is stale by name."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acestep.cli.console import run_click
from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.locale_text import LANGUAGES
from calibrate.cli import cli as calibrate
from calibrate.files import pretty_json
from calibrate.report import cli as report_cli
from calibrate.report.render import PAGE, Files, read_sources, render, stale, write_files
from tests.guide_pages import PLAIN
from tests.guides import simulated

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files() -> Files:
    """What is rendered in the `checkout`, rendered once."""
    return render(PLAIN)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose record and table are of the card that is a formula."""
    (tmp_path / "tiers" / "measurements").mkdir(parents=True)
    shutil.copy(ROOT / "tiers" / "policy.json", tmp_path / "tiers")
    (tmp_path / "tiers" / "measurements" / "formula.json").write_text(pretty_json(simulated()), encoding="utf-8")
    (tmp_path / "tiers" / "generated_tiers.json").write_text(pretty_json(PLAIN.table), encoding="utf-8")
    monkeypatch.setattr(report_cli, "_CHECKOUT", tmp_path)
    return tmp_path


def test_rendering_is_the_same_bytes_in_another_process_and_needs_no_torch(checkout: Path, files: Files) -> None:
    code = (
        "import sys, pathlib, hashlib; from calibrate.report.render import *;"
        "files = render(read_sources(pathlib.Path('.'))); assert 'torch' not in sys.modules;"
        "print(hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env=os.environ | {"PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def test_what_was_rendered_passes_the_check_and_the_check_writes_nothing(checkout: Path, files: Files) -> None:
    assert stale(checkout, files) == sorted(files)
    assert run_click(calibrate, ["render"]) == Exit.OK
    found = {path.relative_to(checkout).as_posix() for path in checkout.glob("docs/**/*.*")}
    assert found == set(files)
    assert {path: (checkout / path).read_bytes().decode() for path in found} == files
    before = {path: (checkout / path).stat().st_mtime_ns for path in found}
    assert run_click(calibrate, ["render", "--check"]) == Exit.OK
    assert {path: (checkout / path).stat().st_mtime_ns for path in found} == before


def _edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("10", "11", 1), encoding="utf-8")


def _delete(path: Path) -> None:
    path.unlink()


def _garble(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("spoil", [_edit, _delete, _garble])
def test_any_spoiled_file_is_stale_by_name(tmp_path: Path, files: Files, spoil: Any) -> None:
    for path in files:
        write_files(tmp_path, files)
        spoil(tmp_path / path)
        assert stale(tmp_path, files) == [path]


def test_a_plot_that_is_no_longer_drawn_is_stale_and_goes(tmp_path: Path, files: Files) -> None:
    write_files(tmp_path, files)
    left = tmp_path / "docs" / "plots" / "vram-old.svg"
    left.write_text("<svg/>")
    assert stale(tmp_path, files) == ["docs/plots/vram-old.svg"]
    write_files(tmp_path, files)
    assert not left.exists()


def test_a_table_that_changes_makes_every_page_stale(
    checkout: Path, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(checkout, files)
    table = json.loads((checkout / "tiers" / "generated_tiers.json").read_text())
    tier = table["variants"]["turbo"]["tiers"][0]
    tier["label"] = "≤5GB"
    (checkout / "tiers" / "generated_tiers.json").write_text(json.dumps(table))
    assert run_click(calibrate, ["render", "--check"]) == Exit.REGRESSED
    err = capsys.readouterr().err
    assert all(f"stale: docs/{language}/{PAGE}" in err for language in LANGUAGES)


def test_without_a_checkout_rendering_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="checkout"):
        read_sources(tmp_path)


def test_a_table_whose_record_is_lost_is_invalid(checkout: Path) -> None:
    (checkout / "tiers" / "measurements" / "formula.json").unlink()
    with pytest.raises(InvalidInputError, match="merge again"):
        read_sources(checkout)
