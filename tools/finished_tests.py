"""A plugin of pytest that writes down every test that has finished, and goes on after those.

    python -m pytest -p tools.finished_tests --finished-in=FILE [--resume] ...

FILE has a line of JSON for each test. A run that was interrupted goes on with `--resume`; a test that took the whole
process with it counts as `died` and is not tried again, so that those after it get their turn. The exit code is that
of all runs together: 1 where any test failed.
"""

import os
from pathlib import Path

import msgspec
import pytest

DIED = "died"
FAILURES = frozenset({"failed", DIED})
ENDED_OUTCOMES = frozenset({pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED})


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One test, with what it said where it did not pass."""

    test: str
    outcome: str
    seconds: float = 0.0
    said: str = ""


class FinishedTests:
    """The tests that have finished, in a file that grows; beside it, the name of the one that is running."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._running = path.with_name(path.name + ".running")
        if not resume:
            path.unlink(missing_ok=True)
            self._running.unlink(missing_ok=True)
        path.touch()
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        # A line that was not finished counts for nothing, and what comes next begins where it began.
        os.truncate(path, len(whole))
        read = (msgspec.json.decode(line, type=Finished) for line in whole.splitlines())
        self.finished = {one.test: one for one in read}
        if self._running.exists():
            test = self._running.read_text(encoding="utf-8")
            self.keep(Finished(test=test, outcome=DIED, said="the process ended while this test was running"))

    def begin(self, test: str) -> None:
        """A test begins: should the process end now, it was this one."""
        self._running.write_text(test, encoding="utf-8")

    def keep(self, one: Finished) -> None:
        """A test has finished, for good."""
        self.finished[one.test] = one
        with self._path.open("ab") as file:
            file.write(_line(one))
            file.flush()
            os.fsync(file.fileno())
        self.stop()

    def stop(self) -> None:
        """No test is running."""
        self._running.unlink(missing_ok=True)


class Plugin:
    """What pytest tells, written down."""

    def __init__(self, journal: FinishedTests) -> None:
        self._journal = journal
        self._reports: list[pytest.TestReport] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """What has finished is not run again."""
        known = [item for item in items if item.nodeid in self._journal.finished]
        items[:] = [item for item in items if item.nodeid not in self._journal.finished]
        config.hook.pytest_deselected(items=known)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._reports = []
        self._journal.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Its setup, its body or its teardown."""
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """All of it was run."""
        outcomes = {report.outcome for report in self._reports}
        worst = next(outcome for outcome in ("failed", "skipped", "passed") if outcome in outcomes)
        seconds = sum(report.duration for report in self._reports)
        said = "\n".join(report.longreprtext for report in self._reports if report.outcome == worst != "passed")
        self._journal.keep(Finished(test=nodeid, outcome=worst, seconds=round(seconds, 3), said=said))

    def pytest_keyboard_interrupt(self) -> None:
        """The test that was running has another turn."""
        self._journal.stop()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """One exit code for this run and those before it."""
        if exitstatus in ENDED_OUTCOMES and self._journal.finished:
            failed = any(one.outcome in FAILURES for one in self._journal.finished.values())
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK


def pytest_addoption(parser: pytest.Parser) -> None:
    """The file, and whether to go on with it."""
    group = parser.getgroup("finished tests")
    group.addoption("--finished-in", type=Path, metavar="FILE", help="write down every test that has finished")
    group.addoption("--resume", action="store_true", help="go on after those that are in the file")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing without a file."""
    path = config.getoption("finished_in")
    if path is not None:
        config.pluginmanager.register(Plugin(FinishedTests(path, resume=config.getoption("resume"))))


def _line(one: Finished) -> bytes:
    return msgspec.json.encode(one) + b"\n"
