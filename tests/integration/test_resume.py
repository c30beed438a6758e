"""An interrupted campaign, for any reason, continues where it was and writes the file that it would have written."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.cli.console import run_click
from acestep.errors import Exit
from acestep.knobs import Knobs, Variant
from acestep.units import GIB
from calibrate.campaign import probers
from calibrate.campaign.boundary import Method
from calibrate.campaign.journal import Journal, journal_path
from calibrate.campaign.run import CampaignScope, run_campaign
from calibrate.cli import cli
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.local import Local
from calibrate.probes.base import CapMethod, ProbeResult
from calibrate.record.measurement import load_measurement
from calibrate.table.policy import load_policy
from calibrate.workload import Workload
from tests.fakes import AnalyticProber
from tests.faulty_card import FaultyProber, living
from tests.killing import journal_is_gone, kill_at, run_on, run_with
from tests.processes import has_ended, require_end
from tests.some import first_of

POLICY = load_policy()
ONE_SIZE = ("--tiers", 5)


class Stopping(AnalyticProber):
    """Answers some questions, and then something happens."""

    def __init__(self, answers: int, happening: Callable[[], None]) -> None:
        super().__init__()
        self._left = answers
        self._happening = happening

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        if not self._left:
            self._happening()
        self._left -= 1
        return super().probe(knobs, workload, cap_bytes)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "card.json"
    assert run_on(AnalyticProber(), output, *ONE_SIZE) == Exit.OK
    assert journal_is_gone(output)
    return output.read_bytes()


@pytest.mark.parametrize("write", first_of([1, 20, 0, 2, 9], 2))
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_after_a_kill_in_a_write_the_file_is_the_same_byte_for_byte(
    write: int, share: float, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "card.json"
    assert kill_at(write, share, output, *ONE_SIZE)
    assert not output.exists()
    assert run_on(AnalyticProber(), output, *ONE_SIZE, "--resume") == Exit.OK
    assert output.read_bytes() == whole
    assert journal_is_gone(output)


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (0, "Interrupted before the first answer."),
        (1, "Interrupted; 1 answer is kept in {}. Go on with the same command and --resume."),
        (4, "Interrupted; 4 answers are kept in {}. Go on with the same command and --resume."),
    ],
)
def test_an_interruption_says_what_is_kept(
    answers: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "card.json"
    assert run_on(Stopping(answers, interrupt), output, *ONE_SIZE) == Exit.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == sentence.format(journal_path(output))


def test_a_second_ctrl_c_hides_nothing_of_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def executor_for(*_: object) -> Iterator[SimulationAlone]:
        try:
            yield SimulationAlone(Stopping(4, interrupt))
        finally:
            # While its processes are ended.
            interrupt()

    monkeypatch.setattr(probers, "executor_for", executor_for)
    output = tmp_path / "card.json"
    assert run_click(cli, ["run", "-o", str(output), *map(str, ONE_SIZE)]) == Exit.INTERRUPTED
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said == f"Interrupted; 4 answers are kept in {journal_path(output)}. Go on with the same command and --resume."
    )


def test_ctrl_c_is_exit_code_130_and_no_answer_is_asked_for_twice(whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "card.json"
    assert run_on(Stopping(7, interrupt), output, *ONE_SIZE) == Exit.INTERRUPTED
    assert not output.exists()
    assert len(journal_path(output).read_text().splitlines()) == 1 + 7
    again = AnalyticProber()
    assert run_on(again, output, *ONE_SIZE, "--resume") == Exit.OK
    assert output.read_bytes() == whole
    assert len(again.asked) == len(load_measurement(output).probes) - 7


def test_without_resume_an_unfinished_run_is_not_thrown_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "card.json"
    run_on(Stopping(3, interrupt), output, *ONE_SIZE)
    before = journal_path(output).read_bytes()
    assert run_on(AnalyticProber(), output, *ONE_SIZE) == Exit.USAGE
    assert "--resume" in capsys.readouterr().err
    assert journal_path(output).read_bytes() == before


def test_resume_without_a_journal_begins(whole: bytes, tmp_path: Path) -> None:
    assert run_on(AnalyticProber(), tmp_path / "card.json", *ONE_SIZE, "--resume") == Exit.OK
    assert (tmp_path / "card.json").read_bytes() == whole


def test_a_journal_of_other_code_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "card.json"
    run_on(Stopping(3, interrupt), output, *ONE_SIZE, code="0.0.1+tree.0123456789abcdef")
    assert run_on(AnalyticProber(), output, *ONE_SIZE, "--resume") == Exit.USAGE
    told = capsys.readouterr().err
    assert "0.0.1+tree.0123456789abcdef" in told
    assert "Traceback" not in told


def test_the_journal_goes_only_when_the_file_is_whole(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "card.json"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda _: interrupt())
        assert run_on(AnalyticProber(), output, *ONE_SIZE) == Exit.INTERRUPTED
    assert output.read_bytes() == whole
    again = AnalyticProber()
    assert run_on(again, output, *ONE_SIZE, "--resume") == Exit.OK
    assert (again.asked, output.read_bytes()) == ([], whole)


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.fakes import AnalyticProber
from tests.killing import run_on
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
sys.exit(run_on(AnalyticProber(), Path(sys.argv[1]), "--tiers", 5))
"""


def test_a_full_disk_ends_in_exit_code_5_and_the_rest_can_be_done_later(whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "card.json"
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, output], capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.RUN_FAILED, ended.stderr
    assert "--resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert journal_path(output).read_bytes().endswith(b"\n")
    assert run_on(AnalyticProber(), output, *ONE_SIZE, "--resume") == Exit.OK
    assert output.read_bytes() == whole


WORKER = (
    sys.executable,
    "-c",
    "import sys, time; from calibrate.executors.worker import serve_tasks; from tests.fakes import AnalyticProber;"
    " serve_tasks(int(sys.argv[-1]), AnalyticProber)",
)


def campaign(executor: Any) -> bytes:
    scope = CampaignScope(variant=Variant.TURBO, sizes_gib=(4, 5, 8))
    try:
        return msgspec.json.encode(run_campaign(executor, POLICY, scope, lambda _: None))
    finally:
        executor.close()


def test_several_processes_find_what_one_finds() -> None:
    assert campaign(Local(3, WORKER)) == campaign(SimulationAlone(AnalyticProber()))


def test_workers_end_with_their_parent() -> None:
    program = (
        "import sys, time; from calibrate.executors.local import Local; from calibrate.executors.questions import Fit;"
        "from acestep.knobs import Variant; local = Local(1, sys.argv[1:]);"
        "local.one_of([Fit(variant=Variant.TURBO)], list);"
        "print(local.pool.processes[0].pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, *WORKER], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert not has_ended(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    require_end([worker])


def test_the_plan_is_told_before_anything_is_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_on(AnalyticProber(), tmp_path / "card.json", "--dry-run", "--tiers", 8, "--lm", "none") == Exit.OK
    told = capsys.readouterr().err
    assert re.search(r"About \d+ probes", told)
    assert "merge" in told
    assert list(tmp_path.iterdir()) == []


class Crashing(FaultyProber):
    """A real card's prober, whose child is killed while it loads the third model."""

    def __init__(self, deaths: Sequence[int]) -> None:
        super().__init__()
        self._deaths = deaths
        self._seen: list[Knobs] = []

    def model_for(self, knobs: Knobs) -> str:
        if knobs not in self._seen:
            self._seen.append(knobs)
        return "sigkill" if len(self._seen) in self._deaths else "fits"


def run_on_card(prober: FaultyProber, output: Path, *arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probers, "method_for", lambda _: Method())
        try:
            return run_with(CardAlone(prober), output, "--device", "cuda", "--tiers", 8, "--lm", "none", *arguments)
        finally:
            prober.close()
            assert living(prober.token) == {}


def test_a_child_that_crashes_is_exit_code_4_and_what_was_measured_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "card.json"
    assert run_on_card(Crashing([3]), output) == Exit.NOT_MEASURED
    assert "crashed" in capsys.readouterr().err
    assert not output.exists()
    assert len(journal_path(output).read_text().splitlines()) > 1
    assert run_on_card(Crashing([]), output, "--resume") == Exit.OK
    record = load_measurement(output)
    assert run_on_card(Crashing([]), tmp_path / "undisturbed.json") == Exit.OK
    undisturbed = load_measurement(tmp_path / "undisturbed.json")
    assert (record.probes, record.certificates) == (undisturbed.probes, undisturbed.certificates)
    assert record.cap_method is CapMethod.FRACTION
    assert (record.conditions.watched, record.conditions.foreign_bytes) == (True, GIB)
    assert record.conditions.allocator == "expandable_segments:False"
    assert [probe.workload.steps for probe in record.probes].count(8) == 1, "the headline, in full"
