"""A place that cannot be written to is refused before anything is read or computed, by every command that writes."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from acestep import api, output_file
from acestep.cli.console import run_click
from acestep.cli.main import cli as acestep
from acestep.errors import Exit
from calibrate.cli import cli as calibrate
from calibrate.profiling.cli import cli as profiler
from ci.gate import gate

WRITERS: dict[str, tuple[click.Command, tuple[str, ...]]] = {
    "acestep codes": (acestep, ("codes", "NOT-THERE.wav", "--out")),
    "calibrate run": (calibrate, ("run", "-o")),
    "calibrate compare": (calibrate, ("compare", "NOT-THERE.json", "NOT-THERE-EITHER.json", "--csv")),
    "calibrate reality": (calibrate, ("reality", "NOT-THERE.json", "--csv")),
    "calibrate report": (calibrate, ("report", "--html", "NOT-THERE.json", "-o")),
    "gate": (gate, ("--base", "NOT-THERE", "--junit")),
    **{
        f"profiler {mode}": (profiler, ("--mode", mode, "--benchmark-output"))
        for mode in ("profile", "benchmark", "understand", "tier-test")
    },
}
"""Commands whose work would fail: the answer is about the place only where the place is looked at first."""


def _missing_folder(folder: Path) -> Path:
    return folder / "missing" / "out.csv"


def _folder(folder: Path) -> Path:
    (folder / "folder.csv").mkdir()
    return folder / "folder.csv"


def _below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("", encoding="utf-8")
    return folder / "file" / "out.csv"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def _refused(name: str, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, arguments = WRITERS[name]
    code = run_click(command, [*arguments, str(target)])
    out, err = capsys.readouterr()
    assert (code, out) == (Exit.USAGE, "")
    assert str(target) in err
    assert "NOT-THERE" not in err


@pytest.mark.parametrize("place", [_missing_folder, _folder, _below_a_file])
@pytest.mark.parametrize("name", WRITERS)
def test_a_bad_place_is_refused_before_the_input_is_read(
    name: str, place: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(name, place(tmp_path), capsys)


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_nothing_may_be_written_to_is_refused_before_the_input_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The user of a container may write everywhere, so the system's answer is made here.
    class ReadOnly(type(tmp_path)):  # type: ignore[misc]
        def touch(self, *_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(output_file, "_place_of", lambda target: ReadOnly(target))
    _refused(name, tmp_path / "out.csv", capsys)


def test_a_part_that_a_killed_command_left_is_removed_by_the_next_one_that_writes_the_same_file(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = tmp_path / f".table.json.{ended.pid}.part"
    others = [tmp_path / f".other.json.{ended.pid}.part", tmp_path / f".table.json.{os.getppid()}.part"]
    for path in (left, *others):
        path.touch()
    with output_file.output_file(tmp_path / "table.json") as write:
        write("{}")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "table.json"])


@pytest.mark.parametrize("inside", [".", "below"])
def test_a_folder_for_songs_that_cannot_be_made_is_refused_before_the_plan(
    inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(api, "plan_to_run", planned)
    (tmp_path / "file").write_text("", encoding="utf-8")
    target = tmp_path / "file" / inside
    code = run_click(acestep, ["generate", "--caption", "x", "--model", "tiny", "--out", str(target)])
    assert code in (Exit.USAGE, Exit.RUN_FAILED)
    assert str(target) in capsys.readouterr().err


def test_the_recording_itself_is_no_place_for_its_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(b"RIFF")
    assert run_click(acestep, ["codes", str(song), "--out", str(song)]) == Exit.USAGE
    assert "recording itself" in capsys.readouterr().err
    assert song.read_bytes() == b"RIFF"
