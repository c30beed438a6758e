"""`calibrate run --cards` on this machine: one process for each card, and cards of one kind share a campaign."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from acestep.errors import Exit
from acestep.hardware.detection import DEVICE_VARIABLE
from calibrate.campaign import probers
from calibrate.campaign.boundary import Method
from calibrate.campaign.journal import journal_path
from calibrate.cli import cli
from calibrate.executors import local_cards
from calibrate.executors.alone import SimulationAlone
from calibrate.executors.cards import simulated_as
from calibrate.executors.local_cards import LocalMachine
from calibrate.files import digest
from calibrate.fingerprint import code_version
from calibrate.record.measurement import load_measurement
from tests.command_lines import ROOT
from tests.fake_cards import Board
from tests.fakes import AnalyticProber
from tests.formula_card import Run, command
from tests.killing import run_with
from tests.two_cards import Driver

ONE_SIZE = ("--tiers", 5)
TWINS = (Board(name="NVIDIA L4", uuid="GPU-aaaa-1", gib=24), Board(name="NVIDIA L4", uuid="GPU-bbbb-2", gib=24))
OLD = Board(name="Tesla T4", uuid="GPU-cccc-3", gib=16, capability=(7, 5))

command = command


@pytest.fixture(autouse=True)
def _processes_of_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalMachine, "command", (sys.executable, "-m", "tests.card_process"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # The forecasts of a real card need torch and minutes.
    monkeypatch.setattr(probers, "method_for", lambda device: Method(spurious_rate=0.0))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A machine with two equal cards, and one that computes in float32."""
    found = Driver(monkeypatch)
    found.boards(*TWINS, OLD)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(board.uuid for board in (*TWINS, OLD)))
    return found


def require_local_file(folder: Path, kind: str) -> None:
    local = folder / "local.json"
    executor = SimulationAlone(AnalyticProber(), simulated_as(kind))
    assert run_with(executor, local, *ONE_SIZE, "--card", kind, code=code_version()) == Exit.OK
    assert (folder / f"simulated-{kind}-turbo.json").read_bytes() == local.read_bytes()
    local.unlink()


def test_simulated_kinds_have_the_files_of_runs_alone_although_a_process_ends(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cards, "usable_processes", lambda: 2)
    monkeypatch.setenv("END_ONCE", str(tmp_path / "ended"))
    folder = tmp_path / "records"
    code, out, err = command(cli, "run", "--cards", "H100,L4", *ONE_SIZE, "-o", folder, "--json")
    assert code == Exit.OK, err
    assert "H100: 2 workers on this machine." in err
    assert (tmp_path / "ended").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["simulated-H100-turbo.json", "simulated-L4-turbo.json"]
    for kind in ("H100", "L4"):
        require_local_file(folder, kind)
    events = [json.loads(line) for line in out.splitlines()]
    assert {event["card"] for event in events if event["event"] == "written"} == {"H100", "L4"}


def test_equal_gpus_share_one_campaign_although_the_process_of_one_ends(
    driver: Driver, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    monkeypatch.setenv("END_ONCE", str(tmp_path.with_suffix(".ended")))
    monkeypatch.setattr(local_cards, "FREED_S", 0.1)
    arguments = ("--device", "cuda", "--cards", "all", "--lm", "none", *ONE_SIZE)
    code, _, err = command(cli, "run", *arguments, "-o", tmp_path)
    assert code == Exit.OK, err
    assert "Tesla T4 has no bfloat16" in err
    (path,) = tmp_path.iterdir()
    assert path.name == "L4-turbo.json"
    card = load_measurement(path).card
    assert (card.kind, card.name, card.uuid) == ("cuda", "NVIDIA L4", "")
    assert card.serials == tuple(sorted(digest(board.uuid) for board in TWINS))


def test_a_campaign_that_other_cards_go_on_with_names_all_of_them(
    driver: Driver, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--device", "cuda", "--cards", "L4", "--lm", "none", *ONE_SIZE, "-o", tmp_path)
    told: list[object] = []

    def interrupt_later(update: object) -> None:
        told.append(update)
        if len(told) == 12:
            raise KeyboardInterrupt

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", TWINS[0].uuid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibrate.fleet.views._Sentences.tell", lambda _, update: interrupt_later(update))
        assert command(cli, "run", *arguments)[0] == Exit.INTERRUPTED
    journal = journal_path(tmp_path / "L4-turbo.json").read_text()
    assert journal.count("\n") > 2
    assert TWINS[0].uuid not in journal
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", TWINS[1].uuid)
    code, _, err = command(cli, "run", *arguments, "--resume")
    assert code == Exit.OK, err
    card = load_measurement(tmp_path / "L4-turbo.json").card
    assert card.serials == tuple(sorted(digest(board.uuid) for board in TWINS))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--device", "cuda", "--cards", "H100"), Exit.NOT_MEASURED, "this machine has no H100; it has L4"),
        (("--device", "cuda", "--cards", "T4"), Exit.NOT_MEASURED, "this machine has no T4; it has L4"),
        (("--cards", "GTX-9"), Exit.USAGE, "GTX-9 is no card that is known"),
        (("--cards", "H100,h100"), Exit.USAGE, "H100 and h100 would be written to one file"),
        (("--cards", "H100", "--card", "L4"), Exit.USAGE, "--card goes only with --executor local and without --cards"),
    ],
)
def test_cards_that_are_not_here_are_refused_before_any_process_starts(
    arguments: Sequence[str], code: Exit, sentence: str, driver: Driver, command: Run, tmp_path: Path
) -> None:
    found, _, err = command(cli, "run", *arguments, "-o", tmp_path)
    assert found == code, err
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_all_cards_are_none(driver: Driver, command: Run, tmp_path: Path) -> None:
    driver.boards()
    for device in ("cuda", "simulated"):
        code, _, err = command(cli, "run", "--device", device, "--cards", "all", "-o", tmp_path)
        assert code == Exit.NOT_MEASURED
        assert "no NVIDIA card was found" in err


def test_several_cards_of_which_one_tells_no_uuid_are_refused(
    driver: Driver, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = Board(name="NVIDIA L4", uuid="", gib=24)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver.boards(TWINS[0], nameless)
    code, _, err = command(cli, "run", "--device", "cuda", "--cards", "all", "--dry-run")
    assert code == Exit.NOT_MEASURED
    assert "NVIDIA L4 tells no UUID" in err
    driver.boards(nameless)
    assert command(cli, "run", "--device", "cuda", "--cards", "all", "--dry-run")[0] == Exit.OK


def test_a_dry_run_tells_the_cards_in_any_spelling(driver: Driver, command: Run) -> None:
    code, _, err = command(cli, "run", "--device", "cuda", "--cards", "l4", "--dry-run")
    assert code == Exit.OK
    assert "L4: 2 workers on this machine." in err
