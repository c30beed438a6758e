"""`calibrate run --executor ray`, with a cluster that is only played: files, lines, refusals and interruptions."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from acestep.errors import Exit
from calibrate.campaign.journal import journal_path
from calibrate.campaign.lock import Lock
from calibrate.cli import cli
from calibrate.commands import run_fleet, run_minutes
from calibrate.executors import ray_cluster
from calibrate.executors.alone import SimulationAlone
from calibrate.executors.cards import simulated_as
from calibrate.executors.remote import Place, WorkerSetup
from calibrate.fingerprint import code_version
from calibrate.fleet.updates import Cards, Failed, Progressed, Told, Written
from calibrate.fleet.views import FleetRow, table_of
from calibrate.verdict import Verdict
from tests.fake_workers import FakeWorkers, place, replaced
from tests.fakes import AnalyticProber
from tests.formula_card import Run, command
from tests.killing import run_with

ONE_SIZE = ("--tiers", 5)

command = command


class PlayedCluster:
    """A cluster with two cards of each kind; what a test changes of the workers of a kind is in `changes`."""

    name, verb = "the cluster", "declares"

    def __init__(self) -> None:
        self.kinds_there = ["H100", "L4"]
        self.undeclared: list[str] = []
        self.changes: dict[str, Callable[[FakeWorkers], None]] = {}
        self.closed = 0

    def __call__(self, address: str) -> "PlayedCluster":
        assert address == "auto"
        return self

    def kinds(self, device: str) -> dict[str, Sequence[Place]]:
        return {kind: [place(1), place(2)] for kind in self.kinds_there}

    def left_out(self) -> list[str]:
        return self.undeclared

    def workers(self, setup: WorkerSetup) -> FakeWorkers:
        workers = FakeWorkers(2, setup=setup)
        self.changes.get(setup.kind, lambda _: None)(workers)
        return workers

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> PlayedCluster:
    played = PlayedCluster()
    monkeypatch.setattr(run_fleet, "require_extra", lambda _: None)
    monkeypatch.setattr(ray_cluster, "RayCluster", played)
    return played


def run(command: Run, folder: Path, *arguments: Any) -> tuple[int, str, str]:
    return command(cli, "run", "--executor", "ray", *ONE_SIZE, "-o", folder, *arguments)


def path_of(folder: Path, kind: str) -> Path:
    return folder / f"simulated-{kind}-turbo.json"


def require_local_file(folder: Path, kind: str) -> None:
    local = folder / "local.json"
    executor = SimulationAlone(AnalyticProber(), simulated_as(kind))
    assert run_with(executor, local, *ONE_SIZE, "--card", kind, code=code_version()) == Exit.OK
    assert path_of(folder, kind).read_bytes() == local.read_bytes()


def test_each_kind_gets_the_file_of_a_local_run(cluster: PlayedCluster, command: Run, tmp_path: Path) -> None:
    code, out, err = run(command, tmp_path, "--cards", "all")
    assert (code, out) == (Exit.OK, "")
    for kind in cluster.kinds_there:
        assert f"{kind}: 2 workers on 10.0.0.1, 10.0.0.2." in err
        require_local_file(tmp_path, kind)
    assert cluster.closed == 1


def lose_all(workers: FakeWorkers) -> None:
    """Lose every worker once some questions were answered."""
    workers.lose = lambda place, task: len(workers.asked) > 9


def test_one_kind_that_fails_leaves_its_journal_and_the_other_its_file(
    cluster: PlayedCluster, command: Run, tmp_path: Path
) -> None:
    cluster.changes["L4"] = lose_all
    code, out, _ = run(command, tmp_path, "--json")
    assert code == Exit.NOT_MEASURED
    events = [json.loads(line) for line in out.splitlines()]
    ended = {event["card"]: event for event in events if event["event"] in ("written", "failed")}
    assert ended["H100"]["event"] == "written"
    assert ended["L4"]["exit_code"] == Exit.NOT_MEASURED
    assert "the node is gone" in ended["L4"]["message"]
    require_local_file(tmp_path, "H100")
    assert not path_of(tmp_path, "L4").exists()
    assert journal_path(path_of(tmp_path, "L4")).read_bytes().count(b"\n") > 5
    cluster.changes.clear()
    assert run(command, tmp_path, "--cards", "L4", "--resume")[0] == Exit.OK
    require_local_file(tmp_path, "L4")


def test_a_kind_that_fails_is_told_once(cluster: PlayedCluster, command: Run, tmp_path: Path) -> None:
    cluster.changes["L4"] = lose_all
    code, _, err = run(command, tmp_path)
    assert code == Exit.NOT_MEASURED
    assert err.count("error: L4: ") == 1


def test_ctrl_c_keeps_the_answers_of_all_kinds(cluster: PlayedCluster, command: Run, tmp_path: Path) -> None:
    told: list[object] = []

    def interrupt_later(update: object) -> None:
        told.append(update)
        if sum(isinstance(one, Progressed) for one in told) == 12:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibrate.fleet.views._Sentences.tell", lambda _, update: interrupt_later(update))
        code, _, err = run(command, tmp_path)
    assert code == Exit.INTERRUPTED
    kept = sum(journal_path(path_of(tmp_path, kind)).read_bytes().count(b"\n") - 1 for kind in cluster.kinds_there)
    assert err.splitlines()[-1] == (
        f"Interrupted; {kept} answers are kept in {tmp_path}. Go on with the same command and --resume."
    )
    code, out, _ = run(command, tmp_path, "--resume", "--json")
    assert code == Exit.OK
    assert all(json.loads(line)["event"] for line in out.splitlines())
    for kind in cluster.kinds_there:
        require_local_file(tmp_path, kind)


def test_a_second_run_into_one_folder_is_refused_before_it_starts_a_worker(
    cluster: PlayedCluster, command: Run, tmp_path: Path
) -> None:
    started: list[FakeWorkers] = []
    cluster.changes["H100"] = started.append
    lock = Lock(path_of(tmp_path, "H100"))
    code, _, err = run(command, tmp_path, "--cards", "H100")
    lock.release()
    assert code == Exit.USAGE
    assert "another run is writing it" in err
    assert [workers.started for workers in started] == [[]]
    assert list(tmp_path.iterdir()) == []


def test_a_defect_in_one_campaign_ends_all_and_is_not_hidden(
    cluster: PlayedCluster, command: Run, tmp_path: Path
) -> None:
    def break_it(workers: FakeWorkers) -> None:
        workers.lose = lambda place, task: 1 // 0 > 0

    cluster.changes["L4"] = break_it
    with pytest.raises(ZeroDivisionError):
        run(command, tmp_path)
    assert cluster.closed == 1


def test_an_excluded_card_is_told_with_its_reason(cluster: PlayedCluster, command: Run, tmp_path: Path) -> None:
    def lie(workers: FakeWorkers) -> None:
        workers.report[place(2)] = replaced(b'"foreign_bytes":0', b'"foreign_bytes":9000000000')

    cluster.changes["H100"] = lie
    code, _, err = run(command, tmp_path, "--cards", "H100")
    assert code == Exit.OK
    told = "H100: 10.0.0.2 #1 is excluded, because other programs hold 8.38 GiB of its card; end them."
    assert err.count(told) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--cards", "B200,L4"), Exit.NOT_MEASURED, "the cluster has no B200; it declares H100, L4"),
        (("--cards", "H100,,L4"), Exit.USAGE, "--cards needs names between commas"),
        (("--card", "H100"), Exit.USAGE, "--card goes only with --executor local"),
        (("--cards", "T4"), Exit.USAGE, "T4 has no bfloat16"),
        (("--cards", "GTX-9"), Exit.USAGE, "GTX-9 is no card that is known"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_any_worker_starts(
    arguments: Sequence[str], code: Exit, sentence: str, cluster: PlayedCluster, command: Run, tmp_path: Path
) -> None:
    cluster.kinds_there += ["T4", "GTX-9"] if code is Exit.USAGE else []
    found, _, err = run(command, tmp_path, *arguments)
    assert found == code
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_two_kinds_that_would_share_a_file_are_refused(cluster: PlayedCluster, command: Run, tmp_path: Path) -> None:
    cluster.kinds_there += ["RTX-4090", "rtx_4090"]
    code, _, err = run(command, tmp_path, "--cards", "all")
    assert code == Exit.USAGE
    assert "RTX-4090 and rtx_4090 would be written to one file" in err
    assert run(command, tmp_path, "--cards", "H100,rtx_4090", "--dry-run")[0] == Exit.OK
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_one_line_of_json_too(cluster: PlayedCluster, command: Run, tmp_path: Path) -> None:
    code, out, _ = run(command, tmp_path, "--cards", "B200", "--json")
    (line,) = out.splitlines()
    assert json.loads(line)["error"]["exit_code"] == code == Exit.NOT_MEASURED


def test_what_is_left_follows_earlier_records(
    cluster: PlayedCluster, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {}
    for verdict in (Verdict.FITS, Verdict.OOM):
        monkeypatch.setattr(run_minutes, "expectation", lambda _, verdict=verdict: lambda _: verdict)
        code, out, _ = run(command, tmp_path / verdict, "--cards", "H100", "--json")
        assert code == Exit.OK
        left[verdict] = next(event["left"] for event in map(json.loads, out.splitlines()) if "left" in event)
    assert left[Verdict.FITS] != left[Verdict.OOM]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--device", "cuda", "--card", "H100"), "--card goes only with --device simulated"),
        (("--card", "nonsense"), "nonsense is no card that is known"),
        (("--card", ""), "is no card that is known"),
    ],
)
def test_a_card_that_cannot_be_simulated_is_refused_before_the_plan(
    arguments: Sequence[str], sentence: str, command: Run
) -> None:
    code, out, err = command(cli, "run", "--dry-run", *arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert sentence in err
    assert "budget" not in err


@pytest.mark.parametrize("option", [("--address", "10.0.0.1:6379"), ("--json",)])
def test_options_of_a_fleet_go_with_no_local_run(option: Sequence[str], command: Run, tmp_path: Path) -> None:
    code, _, err = command(cli, "run", *option, "-o", tmp_path / "card.json")
    assert code == Exit.USAGE
    assert f"{option[0]} goes only with --executor ray" in err


def test_a_dry_run_tells_the_cards_and_probes_nothing(cluster: PlayedCluster, command: Run) -> None:
    cluster.undeclared.append("10.0.0.9 has GPUs whose kind it does not declare.")
    code, _, err = command(cli, "run", "--executor", "ray", "--dry-run")
    assert code == Exit.OK
    assert "H100: 2 workers" in err
    assert "10.0.0.9 has GPUs whose kind it does not declare" in err
    assert re.search(r"About \d+ probes", err)


def test_the_live_table_has_a_row_for_each_kind_and_one_for_each_card_in_trouble() -> None:
    rows = {"H100": FleetRow(), "L4": FleetRow(), "A100": FleetRow()}
    rows["H100"].take(Cards(card="H100", at_work=2, starting=1, excluded={}, slow={"node #3": "14 min on one task"}))
    rows["H100"].take(Progressed(card="H100", done=12, left=28, left_s=185.0))
    rows["H100"].take(Told(card="H100", message="[12 of about 40, 3 min left] 8 x 600 s: fits"))
    rows["L4"].take(Failed(card="L4", message="no L4 is left to ask", exit_code=4))
    rows["A100"].take(Written(card="A100", path="out/A100.json", probes=36, seconds=9.0))
    screen = Console(width=140, record=True)
    with screen.capture() as shown:
        screen.print(table_of(rows))
    lines = shown.get().splitlines()
    assert [line.split()[1] for line in lines if "│" in line][:1] == ["H100"]
    first = next(line for line in lines if "H100" in line)
    for part in ("2 and 1 starting", "12 of about 40", "3 min", "8 x 600 s: fits"):
        assert part in first
    assert any("node #3" in line and "14 min on one task" in line for line in lines)
    assert any("L4" in line and "failed" in line and "no L4 is left" in line for line in lines)
    assert any("A100" in line and "done" in line and "out/A100.json" in line for line in lines)
