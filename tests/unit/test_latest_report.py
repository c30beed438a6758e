"""The report on the newest libraries says which tests fail, which libraries changed, and what could not be tried."""

import subprocess
import sys
from pathlib import Path

import pytest

from acestep.cli.console import run_click
from acestep.errors import Exit
from tools import latest_report as report_tool
from tools.latest_report import (
    FailedTest,
    Suite,
    VersionChange,
    changes,
    locked_versions,
    read_suite,
    report_page,
)

TESTS = """
def test_passes(): pass
def test_fails(): assert 1 == 2, "`past_key_values` is deprecated"
def test_skipped():
    import pytest
    pytest.skip("no card")
"""


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real pytest writes."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_some.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-c", "none.ini", "--junit-xml", "suite.xml"]
    (folder / "none.ini").write_text("[pytest]\n", encoding="utf-8")
    subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60)
    return folder / "suite.xml"


def test_a_suite_is_read_as_pytest_wrote_it(suite_file: Path) -> None:
    suite = read_suite(suite_file.read_text(encoding="utf-8"))
    assert (suite.tests, suite.skipped) == (3, 1)
    (failure,) = suite.failures
    assert failure.test.endswith("test_some::test_fails")
    assert "`past_key_values` is deprecated" in failure.why


def test_the_command_prints_the_page(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_tool, "newer_releases", lambda: {"gradio": "99.0"})
    assert run_click(report_tool.latest_report, [str(suite_file)]) == Exit.OK
    text = capsys.readouterr().out
    assert "1 of 3 tests fail" in text
    assert "past_key_values" in text
    assert "| 99.0 |" in text
    assert run_click(report_tool.latest_report, ["nothing.xml"]) == Exit.OK
    assert "did not run" in capsys.readouterr().out


def test_the_lock_is_read_for_this_platform_alone() -> None:
    lines = ["# a comment", "a==1.0", 'b==2.0 ; sys_platform == "nowhere"', 'C-d==3.0 ; python_version >= "3"', ""]
    assert locked_versions(lines) == {"a": "1.0", "c-d": "3.0"}


def test_only_what_differs_is_told() -> None:
    locked = {"same": "1", "other": "1", "held": "1"}
    here = {"same": "1", "other": "2", "held": "1", "new": "5"}
    assert changes(locked, here, {"held": "2"}) == [
        VersionChange(library="held", locked="1", here="1", newest="2"),
        VersionChange(library="new", locked="none", here="5"),
        VersionChange(library="other", locked="1", here="2"),
    ]


def test_a_green_suite_on_the_locked_libraries_says_so() -> None:
    text = report_page(Suite(tests=3, skipped=0, failures=()), [])
    assert "the suite passes" in text
    assert "Every library is the one of the lock." in text
    assert "fails" not in text.replace("passes", "")


def test_more_failures_than_a_person_reads_are_counted() -> None:
    many = tuple(FailedTest(test=f"t{number}", why="no") for number in range(report_tool.MOST_FAILURES + 7))
    text = report_page(Suite(tests=len(many), skipped=0, failures=many), [])
    assert "and 7 more" in text
    assert text.count("- `t") == report_tool.MOST_FAILURES
