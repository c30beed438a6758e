"""A campaign on a real Ray cluster of this machine writes the files of local runs, whatever happens meanwhile."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from acestep.errors import Exit, NotMeasuredError
from calibrate.campaign.journal import journal_path
from calibrate.executors.ray_cluster import ANSWERS_S, RayCluster
from calibrate.fingerprint import code_version
from calibrate.record.measurement import load_measurement
from tests.command_lines import ROOT
from tests.killing import run_with
from tests.ray.clusters import LocalCluster
from tests.ray.workers import OTHER_CODE, formula
from tests.some import first_of

KINDS = ("H100", "L4", "A100")
ONE_SIZE = ("--tiers", "5")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of local runs, by kind of card."""
    folder, files = tmp_path_factory.mktemp("local"), {}
    for kind in KINDS:
        output = folder / f"{kind}.json"
        assert run_with(formula(kind), output, *ONE_SIZE, "--card", kind, code=code_version()) == Exit.OK
        files[kind] = output.read_bytes()
    assert len(set(files.values())) == len(KINDS)
    return files


def drive(
    cluster: LocalCluster, folder: Path, *arguments: str, worker: str = "KindWorker", write: int = -1
) -> subprocess.Popen[str]:
    """Start `calibrate run` on the cluster in a process of its own."""
    fleet = ("run", "--executor", "ray", "--address", cluster.address, *ONE_SIZE, "-o", str(folder), *arguments)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ray.driver", worker, str(write), *fleet],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(driver: "subprocess.Popen[str]", seconds: float = 120) -> tuple[int, str, str]:
    out, err = driver.communicate(timeout=seconds)
    return driver.returncode, out, err


def files_of(folder: Path, kinds: Sequence[str] = KINDS) -> dict[str, bytes]:
    return {kind: path_of(folder, kind).read_bytes() for kind in kinds}


def path_of(folder: Path, kind: str) -> Path:
    return folder / f"simulated-{kind}-turbo.json"


def wait_for_answers(folder: Path, kind: str, number: int) -> None:
    """Wait until the journal of a kind has so many answers."""
    journal, deadline = journal_path(path_of(folder, kind)), time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") <= number:
        assert time.monotonic() < deadline, f"{journal} does not grow"
        time.sleep(0.02)


def wait_for_workers(driver: "subprocess.Popen[str]", number: int) -> None:
    """Read the lines of a driver until so many workers are at work."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if json.loads(line).get("at_work") == number:
            return
    raise AssertionError(f"the campaign ended before {number} workers were at work")


def wait_for_exclusions(driver: "subprocess.Popen[str]", number: int) -> list[str]:
    """Read what a driver tells people until it has excluded so many nodes; return these lines."""
    assert driver.stderr is not None
    told: list[str] = []
    for line in driver.stderr:
        told += [line] if "is excluded, because" in line else []
        if len(told) == number:
            return told
    raise AssertionError(f"the campaign ended with these exclusions: {told}")


def test_three_kinds_of_card_give_the_files_of_three_local_runs(
    cluster: LocalCluster, local: dict[str, bytes], tmp_path: Path
) -> None:
    code, out, err = finished(drive(cluster, tmp_path, "--cards", "all", "--json"))
    assert code == Exit.OK, err
    assert files_of(tmp_path) == local
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path_of(tmp_path, kind).name for kind in KINDS)
    events = [json.loads(line) for line in out.splitlines()]
    for kind in KINDS:
        own = [event for event in events if event["card"] == kind]
        assert own[-1]["event"] == "written"
        assert own[-1]["probes"] == len(load_measurement(path_of(tmp_path, kind)).probes)
        assert sum(event["event"] == "progressed" for event in own) > own[-1]["probes"]
        assert max(event["at_work"] for event in own if event["event"] == "cards") == 1


@pytest.fixture
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that workers wait for: they answer when it is removed."""
    file = tmp_path_factory.mktemp("hold") / "hold"
    file.touch()
    return file


def test_a_node_that_is_lost_in_mid_run_loses_no_answer(
    cluster: LocalCluster, local: dict[str, bytes], tmp_path: Path, hold: Path
) -> None:
    first, second = cluster.add("H200", hold=hold), cluster.add("H200", hold=hold)
    driver = drive(cluster, tmp_path, "--cards", "H200", "--json")
    wait_for_workers(driver, 2)
    hold.unlink()
    wait_for_answers(tmp_path, "H200", 3)
    cluster.remove(second)
    code, out, err = finished(driver)
    cluster.remove(first)
    assert code == Exit.OK, err
    assert path_of(tmp_path, "H200").read_bytes() == local["H100"]
    at_work = [event["at_work"] for event in map(json.loads, out.splitlines()) if event["event"] == "cards"]
    assert at_work[-1] == 1


@pytest.mark.parametrize("write", first_of([4, 40, 2, 0, 17, 71, 99, 8, 58, 33], 2))
def test_a_driver_that_is_killed_resumes_with_the_same_files(
    write: int, cluster: LocalCluster, local: dict[str, bytes], tmp_path: Path
) -> None:
    code, _, _ = finished(drive(cluster, tmp_path, write=write))
    assert code == -signal.SIGKILL
    assert not all(path_of(tmp_path, kind).exists() for kind in KINDS)
    code, _, err = finished(drive(cluster, tmp_path, "--resume"))
    assert code == Exit.OK, err
    assert files_of(tmp_path) == local


def test_after_ctrl_c_a_journal_is_resumed_on_other_nodes(
    cluster: LocalCluster, local: dict[str, bytes], tmp_path: Path
) -> None:
    first = cluster.add("H200")
    driver = drive(cluster, tmp_path, "--cards", "H200")
    wait_for_answers(tmp_path, "H200", 5)
    driver.send_signal(signal.SIGINT)
    code, _, err = finished(driver)
    assert code == Exit.INTERRUPTED, err
    told = err.splitlines()[-1]
    assert told.endswith(f"answers are kept in {tmp_path}. Go on with the same command and --resume.")
    cluster.remove(first)
    second = cluster.add("H200")
    code, _, err = finished(drive(cluster, tmp_path, "--cards", "H200", "--resume"))
    cluster.remove(second)
    assert code == Exit.OK, err
    # Both kinds have the same kernels, and a record of a simulation says no more.
    assert path_of(tmp_path, "H200").read_bytes() == local["H100"]


LIES = {
    "card": "declared as H200",
    "code": OTHER_CODE,
    "memory": "other programs hold 3.00 GiB of its card",
    "no card": "because no NVIDIA card was found.",
}


def test_nodes_that_are_not_what_they_declare_are_excluded_with_their_reasons(
    cluster: LocalCluster, local: dict[str, bytes], tmp_path: Path, hold: Path
) -> None:
    liars = {lie: cluster.add("H200", lie=lie) for lie in LIES}
    nodes = [*liars.values(), cluster.add("H200", hold=hold)]
    driver = drive(cluster, tmp_path, "--cards", "H200")
    excluded = wait_for_exclusions(driver, len(LIES))
    hold.unlink()
    code, _, err = finished(driver)
    cluster.remove(*nodes)
    assert code == Exit.OK, err
    for lie, reason in LIES.items():
        told = [line for line in excluded if f"/{liars[lie].node_id[:6]} #1 is excluded, because" in line]
        assert told, excluded
        assert reason in told[0]
    assert path_of(tmp_path, "H200").read_bytes() == local["H100"]


def test_a_real_cards_prober_runs_behind_ray_and_a_card_in_use_is_excluded(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Its children are fakes: no card is here, and none is claimed."""
    nodes = [cluster.add("L4", gpus=2), cluster.add("L4", gpus=1, lie="memory")]
    arguments = ("--device", "cuda", "--cards", "L4", "--lm", "none")
    code, _, err = finished(drive(cluster, tmp_path, *arguments, worker="FakeGpuWorker"))
    cluster.remove(*nodes)
    assert code == Exit.OK, err
    assert "other programs hold 3.00 GiB" in err
    record = load_measurement(tmp_path / "L4-turbo.json")
    assert (record.card.kind, record.card.name) == ("cuda", "NVIDIA L4")
    assert len(record.card.serials) == 2, "digests of the two cards that answered"
    assert record.card.uuid == ""
    assert record.conditions.watched
    assert [probe.workload.steps for probe in record.probes].count(8) == 1, "the headline, in full"
    assert local_processes() == []


def local_processes() -> list[str]:
    """Children of fake probers that are still there."""
    import psutil

    def living() -> list[str]:
        words = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
        return [line for line in words if "faulty_worker.py" in line and str(ROOT) in line]

    deadline = time.monotonic() + 20
    while living() and time.monotonic() < deadline:
        time.sleep(0.1)
    return living()


@pytest.mark.soak
def test_the_real_simulation_writes_the_file_of_a_local_run(cluster: LocalCluster, tmp_path: Path) -> None:
    """Under Windows, where no model of the VRAM guard is fitted, which takes minutes."""
    small = ("--os", "windows", "--lm", "none")
    code, _, err = finished(drive(cluster, tmp_path, "--cards", "H100", *small, worker="CardWorker"), seconds=600)
    assert code == Exit.OK, err
    local = tmp_path / "local.json"
    run = (sys.executable, "-m", "calibrate", "run", "--card", "H100", *ONE_SIZE, *small, "-o", str(local))
    subprocess.run(run, cwd=ROOT, capture_output=True, check=True)
    assert path_of(tmp_path, "H100").read_bytes() == local.read_bytes()
    assert load_measurement(local).card.compute_capability == "9.0"


def test_a_kind_that_no_node_declares_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    code, _, err = finished(drive(cluster, tmp_path, "--cards", "B200"))
    assert code == Exit.NOT_MEASURED
    assert "the cluster has no B200; it declares A100, H100, L4" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1:1", "at 127.0.0.1:1 .*refused"), ("ray://127.0.0.1:1", "HOST:PORT"), ("local", "HOST:PORT")],
)
def test_an_address_that_does_not_answer_is_told_at_once(address: str, told: str) -> None:
    began = time.monotonic()
    with pytest.raises(NotMeasuredError, match=told):
        RayCluster(address)
    assert time.monotonic() - began < ANSWERS_S
