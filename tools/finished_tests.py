"""A pytest plugin that records every finished test, so that an interrupted run can continue after them.

python -m pytest -p tools.finished_tests --finished-in=FILE [--resume] ...

FILE has a line of JSON for each test. An interrupted run continues with `--resume`; a test during which the whole
process ended counts as `died` and is not tried again, so that the later tests run. The exit code is that of all runs
together: 1 if any test failed.
"""

import os
from pathlib import Path

import msgspec
import pytest

DIED = "died"
FAILURES = frozenset({"failed", DIED})
ENDED_OUTCOMES = frozenset({pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED})


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One test, with its output if it did not pass."""

    test: str
    outcome: str
    seconds: float = 0.0
    said: str = ""


class FinishedTests:
    """The finished tests, in a file that grows; next to it, the name of the running test."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._running = path.with_name(path.name + ".running")
        if not resume:
            path.unlink(missing_ok=True)
            self._running.unlink(missing_ok=True)
        path.touch()
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        # An incomplete line is ignored and overwritten.
        os.truncate(path, len(whole))
        read = (msgspec.json.decode(line, type=Finished) for line in whole.splitlines())
        self.finished = {one.test: one for one in read}
        if self._running.exists():
            test = self._running.read_text(encoding="utf-8")
            self.keep(Finished(test=test, outcome=DIED, said="the process ended while this test was running"))

    def begin(self, test: str) -> None:
        """Note that a test begins: if the process ends now, it was this one."""
        self._running.write_text(test, encoding="utf-8")

    def keep(self, one: Finished) -> None:
        """Write a finished test to disk."""
        self.finished[one.test] = one
        with self._path.open("ab") as file:
            file.write(_line(one))
            file.flush()
            os.fsync(file.fileno())
        self.stop()

    def stop(self) -> None:
        """Note that no test is running."""
        self._running.unlink(missing_ok=True)


class Plugin:
    """Records pytest's events."""

    def __init__(self, journal: FinishedTests) -> None:
        self._journal = journal
        self._reports: list[pytest.TestReport] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Skip finished tests."""
        known = [item for item in items if item.nodeid in self._journal.finished]
        items[:] = [item for item in items if item.nodeid not in self._journal.finished]
        config.hook.pytest_deselected(items=known)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record that a test begins."""
        self._reports = []
        self._journal.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record its setup, its body or its teardown."""
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Record that all of it was run."""
        outcomes = {report.outcome for report in self._reports}
        worst = next(outcome for outcome in ("failed", "skipped", "passed") if outcome in outcomes)
        seconds = sum(report.duration for report in self._reports)
        said = "\n".join(report.longreprtext for report in self._reports if report.outcome == worst != "passed")
        self._journal.keep(Finished(test=nodeid, outcome=worst, seconds=round(seconds, 3), said=said))

    def pytest_keyboard_interrupt(self) -> None:
        """Let the interrupted test run again next time."""
        self._journal.stop()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Set one exit code for this run and those before it."""
        if exitstatus in ENDED_OUTCOMES and self._journal.finished:
            failed = any(one.outcome in FAILURES for one in self._journal.finished.values())
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for the file and for resuming."""
    group = parser.getgroup("finished tests")
    group.addoption("--finished-in", type=Path, metavar="FILE", help="write down every test that has finished")
    group.addoption("--resume", action="store_true", help="go on after those that are in the file")


def pytest_configure(config: pytest.Config) -> None:
    """Do nothing without a file."""
    path = config.getoption("finished_in")
    if path is not None:
        config.pluginmanager.register(Plugin(FinishedTests(path, resume=config.getoption("resume"))))


def _line(one: Finished) -> bytes:
    return msgspec.json.encode(one) + b"\n"
