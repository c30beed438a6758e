"""A file of tests that takes longer than a piece is run once in all, whatever ends the pieces."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tools import gpu_bundle, gpu_run
from tools.gpu_bundle import _ROOT

SONGS = """
import os, pathlib, signal, time
import pytest

def ran(name):
    with open("ran", "a") as file:
        file.write(name + "\\n")

@pytest.mark.parametrize("number", range(8))
def test_song(number):
    first = pathlib.Path(f"first-{number}")
    if number in (2, 5) and not first.exists():
        first.touch()
        os.kill(os.WHO(), signal.SIGINT)
        time.sleep(60)
    ran(f"song {number}")
    assert number != 3, "out of tune"

def test_skipped():
    pytest.skip("no card")

@pytest.fixture
def hall():
    yield
    raise RuntimeError("the hall fell in")

def test_teardown(hall):
    ran("teardown")
"""
"""Two of the songs are interrupted when they are first sung: they end their own process, or the runner of it."""

STEP = gpu_bundle.tests_of(_ROOT / "tests" / "gpu" / "test_songs.py")
STRICT = '[tool.pytest.ini_options]\nfilterwarnings = ["error"]\n'
WARNS = 'import warnings\nwarnings.warn("old news", DeprecationWarning)\n'
ALONE = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Other plugins take five times as long to import as these tests take to run; the runner's piece has them."""

DIES = "import os, signal\ndef test_dies():\n    os.kill(os.getpid(), signal.SIGKILL)\ndef test_after():\n    pass\n"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder of tests as strict as ours."""
    (tmp_path / "pyproject.toml").write_text(STRICT, encoding="utf-8")
    return tmp_path


def started(house: Path, *more: str) -> "subprocess.Popen[bytes]":
    command = [part.replace("tests/gpu/", "") for part in STEP.command]
    filled = [part.format(python=sys.executable, out=house / "out") for part in command]
    (house / "out").mkdir(exist_ok=True)
    return subprocess.Popen([*filled, *more], cwd=house, env=ALONE, stdout=subprocess.DEVNULL)


def finished(house: Path) -> dict[str, dict[str, Any]]:
    path = house / "out" / "test_songs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    by_name = {one["test"].partition("::")[2]: one for one in found}
    assert len(by_name) == len(found), "a test has finished twice"
    return by_name


def test_interrupted_and_gone_on_with_every_test_runs_once(house: Path) -> None:
    (house / "test_songs.py").write_text(SONGS.replace("WHO", "getpid"), encoding="utf-8")
    codes = [started(house, *more).wait(60) for more in ((), ("--resume",), ("--resume",))]
    assert codes == [2, 2, 1], "a failure of an earlier piece is not forgotten"
    outcomes = {test: one["outcome"] for test, one in finished(house).items()}
    assert outcomes == {
        **{f"test_song[{number}]": "failed" if number == 3 else "passed" for number in range(8)},
        "test_skipped": "skipped",
        "test_teardown": "failed",
    }
    assert "out of tune" in finished(house)["test_song[3]"]["said"]
    ran = (house / "ran").read_text(encoding="utf-8").splitlines()
    assert ran == [*(f"song {number}" for number in range(8)), "teardown"]
    assert started(house, "--resume").wait(60) == 1
    assert (house / "ran").read_text(encoding="utf-8").splitlines() == ran, "nothing is run any more"


def test_a_test_that_takes_the_process_with_it_leaves_the_others_their_turn(house: Path) -> None:
    (house / "test_songs.py").write_text(DIES, encoding="utf-8")
    assert started(house).wait(60) == -signal.SIGKILL
    assert started(house, "--resume").wait(60) == 1
    assert {test: one["outcome"] for test, one in finished(house).items()} == {
        "test_dies": "died",
        "test_after": "passed",
    }


def test_what_libraries_warn_of_fails_nothing(house: Path) -> None:
    (house / "old_library.py").write_text(WARNS, encoding="utf-8")
    (house / "test_songs.py").write_text("import old_library\ndef test_uses_it():\n    pass\n", encoding="utf-8")
    assert started(house).wait(60) == 0
    strictly = [sys.executable, "-m", "pytest", "-q", "test_songs.py"]
    assert subprocess.run(strictly, cwd=house, env=ALONE, stdout=subprocess.DEVNULL, check=False).returncode == 2


def test_a_file_that_cannot_be_imported_is_no_result(house: Path) -> None:
    (house / "test_songs.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    assert started(house).wait(60) not in STEP.ends


def test_a_line_that_was_not_finished_counts_for_nothing(house: Path) -> None:
    (house / "test_songs.py").write_text("def test_one():\n    pass\ndef test_two():\n    pass\n", encoding="utf-8")
    assert started(house).wait(60) == 0
    journal = house / "out" / "test_songs.jsonl"
    whole = journal.read_text(encoding="utf-8")
    journal.write_text(whole[:-9], encoding="utf-8")
    assert started(house, "--resume").wait(60) == 0
    assert list(finished(house)) == ["test_one", "test_two"]


def test_the_runner_s_pieces_carry_a_file_of_tests_to_its_end(house: Path) -> None:
    """As the bundle has it, with nothing but the archive kept between pieces."""
    (source := house / "source").mkdir()
    (source / "tools").symlink_to(_ROOT / "tools")
    (house / "pyproject.toml").rename(source / "pyproject.toml")
    (source / "test_songs.py").write_text(SONGS.replace("WHO", "getppid"), encoding="utf-8")
    (house / f"requirements-{sys.version_info.major}.{sys.version_info.minor}.txt").touch()
    step = msgspec.to_builtins(msgspec.structs.replace(STEP, least_s=0))
    step["command"] = [part.replace("tests/gpu/", "") for part in step["command"]]
    (house / "plan.json").write_text(json.dumps([step]), encoding="utf-8")
    shutil.copy(gpu_run.__file__, house / "run.py")
    # All plugins that are installed are there, but Hypothesis, of which no song makes use, takes a second to import.
    environ = {**os.environ, "PYTEST_ADDOPTS": "-p no:hypothesispytest"}
    said: dict[str, Any] = {"cwd": house, "env": environ, "stderr": subprocess.DEVNULL, "timeout": 60}
    codes = []
    for _ in range(3):
        codes.append(subprocess.run([sys.executable, "run.py"], check=False, **said).returncode)
        shutil.rmtree(house / "out")
        gpu_run.unpack(house / "out")
    assert codes == [gpu_run.INTERRUPTED, gpu_run.INTERRUPTED, 0], "tests that failed are results too"
    assert len(finished(house)) == 10
    ran = (source / "ran").read_text(encoding="utf-8").splitlines()
    assert ran == [*(f"song {number}" for number in range(8)), "teardown"]
