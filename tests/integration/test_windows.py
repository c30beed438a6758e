"""`acestep` and `calibrate` on a Python that has what Windows has, and no more: emulated, in processes of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from acestep.errors import Exit, NotMeasuredError
from calibrate.campaign import probers
from calibrate.executors.alone import SimulationAlone
from calibrate.probes.base import CapMethod
from tests.forked import run_module

ROOT = Path(__file__).parents[2]


def on_windows(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.windows", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
        check=False,
    )


def test_the_emulation_lacks_what_windows_lacks() -> None:
    code = "from tests import windows; windows.become_windows(); exec({!r}, {{'__name__': 'acestep.x'}})"
    for wrong in ("import fcntl", "import os; os.fork", "from signal import SIGKILL", "import select; select.poll()"):
        ended = subprocess.run(
            [sys.executable, "-c", code.format(wrong)], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert ended.returncode == 1, wrong
        assert "No module named" in ended.stderr or "no attribute" in ended.stderr or "cannot import" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("acestep", "plan", "--vram", "8"),
        ("acestep", "tiers"),
        ("acestep", "doctor"),
        ("calibrate", "run", "--device", "simulated", "--dry-run"),
    ],
    ids=" ".join,
)
def test_commands_without_a_model_run(arguments: tuple[str, ...]) -> None:
    ended = on_windows(*arguments)
    assert ended.returncode == Exit.OK, ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_module_can_be_imported_and_a_song_be_made(tmp_path: Path) -> None:
    song = ("generate", "--model", "tiny", "--caption", "x", "--duration", "10", "--json", "--out", str(tmp_path))
    code, said, errors = run_module(ROOT, "tests.windows", ["import", "acestep", *song], tmp_path)
    assert code == Exit.OK, errors
    assert Path(json.loads(said)["songs"][0]["path"]).is_file()


def test_a_real_card_is_refused_in_a_sentence(tmp_path: Path) -> None:
    ended = on_windows("calibrate", "run", "--device", "cuda", "-o", str(tmp_path / "x.json"))
    assert ended.returncode == Exit.NOT_MEASURED
    assert "from Linux or from WSL" in ended.stderr
    assert "--device simulated" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_simulated_probes_run_in_one_process_where_children_inherit_no_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probers, "passes_descriptors", lambda: False)
    with probers.executor_for("simulated", CapMethod.MODEL) as executor:
        assert isinstance(executor, SimulationAlone)
        assert executor.device == "simulated"
    with pytest.raises(NotMeasuredError), probers.executor_for("cuda", CapMethod.FRACTION):
        pass
