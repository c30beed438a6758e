"""The bundle's runner makes one result of any number of parts, however they end and whatever is transferred."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tools import gpu_run

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

COUNTS = """
import sys, time
from pathlib import Path
journal, result, until = Path(sys.argv[1] + ".journal.jsonl"), Path(sys.argv[1]), int(sys.argv[2])
lines = journal.read_text().splitlines() if "--resume" in sys.argv else []
print(len(lines), "were there", flush=True)
assert lines or not journal.exists() or not journal.stat().st_size
try:
    with journal.open("a") as file:
        for number in range(len(lines), until):
            time.sleep(0.05)
            file.write(f"{number}\\n")
            file.flush()
except KeyboardInterrupt:
    sys.exit(130)
result.write_text(journal.read_text())
journal.unlink()
"""
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "counts.py").write_text(COUNTS, encoding="utf-8")
    (tmp_path / f"requirements-{PYTHON}.txt").touch()
    monkeypatch.setattr(gpu_run, "HERE", tmp_path)
    monkeypatch.setattr(gpu_run, "GRACE_S", 5.0)
    return tmp_path


def plan(bundle: Path, *steps: dict[str, Any]) -> None:
    usual = {"journal": "", "least_s": 0, "ends": [0], "required": False, "feeds": ""}
    (bundle / "plan.json").write_text(json.dumps([usual | step for step in steps]), encoding="utf-8")


def counting(until: int, name: str = "song") -> dict[str, Any]:
    command = ["{python}", "counts.py", f"{{out}}/{name}", str(until)]
    return {"name": name, "command": command, "journal": f"{name}.journal.jsonl"}


def piece(bundle: Path, seconds: float) -> int:
    minutes = (gpu_run.GRACE_S + seconds) / 60
    return gpu_run.main(["--minutes", str(minutes), "--out", str(bundle / "out")])


@pytest.mark.parametrize("brought", ["out", "out.tar.gz"])
def test_pieces_make_what_one_go_makes_wherever_the_results_were_in_between(bundle: Path, brought: str) -> None:
    """Also where of several results nothing but the one archive comes along."""
    plan(bundle, counting(2, "before"), counting(30))
    codes: list[int] = []
    while not codes or codes[-1] == gpu_run.INTERRUPTED:
        codes.append(piece(bundle, 0.7))
        (bundle / brought).rename(bundle / "brought back")
        shutil.rmtree(bundle / "out", ignore_errors=True)
        (bundle / "out.tar.gz").unlink(missing_ok=True)
        (bundle / "brought back").rename(bundle / brought)
    assert codes[-1] == 0
    assert len(codes) > 2
    piece(bundle, 0)
    assert (bundle / "out" / "song").read_text(encoding="utf-8") == "".join(f"{n}\n" for n in range(30))
    assert (bundle / "out" / "before").exists()
    assert not (bundle / "out" / "song.journal.jsonl").exists()
    assert not list(bundle.glob("*.unfinished"))


def test_the_archive_has_every_result_however_a_piece_ends(bundle: Path) -> None:
    fails = {"name": "fails", "command": ["{python}", "-c", "raise SystemExit(4)"]}
    plan(bundle, fails, counting(1, "short"), counting(1000))
    assert piece(bundle, 5) == gpu_run.INTERRUPTED
    with tarfile.open(bundle / "out.tar.gz") as archive:
        held = {name.removeprefix("out/") for name in archive.getnames()} - {"out"}
        journal = archive.extractfile("out/song.journal.jsonl")
        assert journal is not None
        assert journal.read() == (bundle / "out" / "song.journal.jsonl").read_bytes()
    assert held == {path.name for path in (bundle / "out").iterdir()}


def test_an_archive_that_is_not_whole_is_told_and_kept(bundle: Path) -> None:
    plan(bundle, counting(3))
    assert piece(bundle, 20) == 0
    shutil.rmtree(bundle / "out")
    broken = (bundle / "out.tar.gz").read_bytes()[:-40]
    (bundle / "out.tar.gz").write_bytes(broken)
    with pytest.raises(SystemExit, match=r"out\.tar\.gz cannot be unpacked"):
        piece(bundle, 20)
    assert (bundle / "out.tar.gz").read_bytes() == broken
    assert not (bundle / "out").exists()


def test_an_archive_does_not_take_the_place_of_results_that_are_there(bundle: Path) -> None:
    plan(bundle, counting(3))
    assert piece(bundle, 20) == 0
    (bundle / "out" / "song").write_text("newer", encoding="utf-8")
    assert piece(bundle, 20) == 0
    assert (bundle / "out" / "song").read_text(encoding="utf-8") == "newer"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_runner_ends_the_step_and_keeps_its_journal(bundle: Path, number: signal.Signals) -> None:
    plan(bundle, counting(1000))
    shutil.copy(gpu_run.__file__, bundle / "run.py")
    runner = subprocess.Popen([sys.executable, "run.py"], cwd=bundle, stderr=subprocess.DEVNULL)
    journal = bundle / "out" / "song.journal.jsonl"
    while not journal.exists() or not journal.read_text(encoding="utf-8"):
        time.sleep(0.02)
    runner.send_signal(number)
    assert runner.wait(20) == gpu_run.INTERRUPTED
    answers = journal.read_text(encoding="utf-8")
    time.sleep(0.3)
    assert journal.read_text(encoding="utf-8") == answers, "no process writes any more"


def test_what_has_ended_is_not_done_again_and_what_failed_is(bundle: Path) -> None:
    fails = {"name": "fails", "command": ["{python}", "-c", "raise SystemExit(4)"]}
    judged = {"name": "judged", "command": ["{python}", "-c", "raise SystemExit(1)"], "ends": [0, 1]}
    plan(bundle, fails, judged, counting(2))
    assert piece(bundle, 20) == 4
    (bundle / "out" / "song").write_text("kept", encoding="utf-8")
    assert piece(bundle, 20) == 4
    assert (bundle / "out" / "song").read_text(encoding="utf-8") == "kept"
    assert [(bundle / "out" / f"{n}.done").exists() for n in ("fails", "judged", "song")] == [False, True, True]


def test_nothing_comes_after_a_failed_step_that_all_others_need(bundle: Path) -> None:
    plan(bundle, {"name": "smoke", "command": ["{python}", "-c", "raise SystemExit(4)"], "required": True}, counting(1))
    assert piece(bundle, 20) == 4
    assert not (bundle / "out" / "song.log").exists()
    assert (bundle / "out.tar.gz").exists()


@pytest.mark.parametrize("several_pieces", [False, True])
@pytest.mark.parametrize("links", [False, True])
def test_a_later_step_begins_with_the_answers_of_the_one_that_feeds_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, several_pieces: bool, links: bool
) -> None:
    """Where a file cannot have two names, it asks them again and ends with the same."""
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    plan(bundle, counting(20, "few") | {"feeds": "all.journal.jsonl"}, counting(25, "all"))
    seconds = 0.6 if several_pieces else 30
    codes: list[int] = []
    while not codes or codes[-1] == gpu_run.INTERRUPTED:
        codes.append(piece(bundle, seconds))
        shutil.rmtree(bundle / "out")
    assert (len(codes) > 1) == several_pieces
    gpu_run.unpack(bundle / "out")
    assert (bundle / "out" / "few").read_text(encoding="utf-8") == "".join(f"{n}\n" for n in range(20))
    assert (bundle / "out" / "all").read_text(encoding="utf-8") == "".join(f"{n}\n" for n in range(25))
    # A piece may end while the interpreter starts; its log is then that of the next.
    said = (bundle / "out" / "all.log").read_text(encoding="utf-8").splitlines()
    began = next(line for line in said if line.endswith("were there"))
    assert began == ("20 were there" if links else "0 were there")


def test_a_script_that_a_step_starts_by_its_path_finds_the_sources(bundle: Path) -> None:
    (bundle / "source" / "kept").mkdir()
    (bundle / "source" / "kept" / "child.py").write_text("import counted\nprint(counted.SONGS)", encoding="utf-8")
    (bundle / "source" / "counted.py").write_text("SONGS = 3", encoding="utf-8")
    plan(bundle, {"name": "starts", "command": ["{python}", "kept/child.py"]})
    assert piece(bundle, 20) == 0
    assert (bundle / "out" / "starts.log").read_text(encoding="utf-8") == "3\n"


def test_a_step_is_not_begun_that_cannot_end_in_time(bundle: Path) -> None:
    plan(bundle, counting(1, "short"), {**counting(1, "long"), "least_s": 1000})
    assert piece(bundle, 20) == gpu_run.INTERRUPTED
    assert (bundle / "out" / "short").exists()
    assert not (bundle / "out" / "long.log").exists()


def test_a_piece_in_which_nothing_was_answered_asks_for_a_longer_one(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(
        bundle, {"name": "slow", "command": ["{python}", "-c", "import time; time.sleep(60)"], "journal": "slow.jsonl"}
    )
    assert piece(bundle, 0.2) == gpu_run.INTERRUPTED
    assert "with more --minutes" in capsys.readouterr().err


def test_a_step_that_ignores_the_interrupt_is_killed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "GRACE_S", 0.3)
    plan(bundle, {"name": "deaf", "command": ["{python}", "-c", DEAF]})
    started = time.monotonic()
    assert piece(bundle, 0.5) == gpu_run.INTERRUPTED
    assert time.monotonic() - started < 20


def test_a_python_without_wheels_is_told_which_there_are(bundle: Path) -> None:
    (bundle / f"requirements-{PYTHON}.txt").rename(bundle / "requirements-3.99.txt")
    plan(bundle)
    with pytest.raises(SystemExit, match=r"wheels for Python 3\.99, this is"):
        piece(bundle, 1)
