"""Reports the suite's results with the newest libraries, as a page: run by the environment of `make test-latest`.

.venv-latest/bin/python -m tools.latest_report .venv-latest/suite.xml

It says which tests fail and why, which libraries are not those of the lock, and which have a release that
pyproject.toml does not allow yet.
"""

import json
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import click
import msgspec
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from acestep.cli import console

_ROOT = Path(__file__).parent.parent
MOST_FAILURES = 50
MOST_CHARACTERS = 300


class FailedTest(msgspec.Struct, frozen=True, kw_only=True):
    """A failed test, and the first line of the reason."""

    test: str
    why: str


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run of the suite."""

    tests: int
    skipped: int
    failures: tuple[FailedTest, ...]


class VersionChange(msgspec.Struct, frozen=True, kw_only=True):
    """A library in another version than in the lock; `newest` is the newest on the index, "" if it is the same."""

    library: str
    locked: str
    here: str
    newest: str = ""


def read_suite(text: str) -> Suite:
    """Parse pytest's JUnit report."""
    cases = list(ET.fromstring(text).iter("testcase"))  # noqa: S314 our own pytest wrote it
    failed = [(case, found) for case in cases for found in case if found.tag in ("failure", "error")]
    return Suite(
        tests=len(cases),
        skipped=sum(case.find("skipped") is not None for case in cases),
        failures=tuple(
            FailedTest(
                test=f"{case.get('classname', '')}::{case.get('name', '')}",
                why=(found.get("message") or "no message").strip().splitlines()[0][:MOST_CHARACTERS],
            )
            for case, found in failed
        ),
    )


def locked_versions(lines: Iterable[str]) -> dict[str, str]:
    """Return the versions of a constraints file for this platform."""
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    here = [pin for pin in pins if pin.marker is None or Marker(str(pin.marker)).evaluate()]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in here}


def changes(locked: Mapping[str, str], here: Mapping[str, str], newest: Mapping[str, str]) -> list[VersionChange]:
    """Libraries that differ from the lock, or have a newer release than is installed."""
    return [
        VersionChange(library=name, locked=locked.get(name, "none"), here=version, newest=newest.get(name, ""))
        for name, version in sorted(here.items())
        if locked.get(name) != version or name in newest
    ]


def report_page(suite: Suite | None, found: Sequence[VersionChange]) -> str:
    """The report as Markdown; `suite` is None where it did not run."""
    if suite is None:
        parts = ["# The newest libraries: the suite did not run", "The log of the job says why."]
    else:
        verdict = f"{len(suite.failures)} of {suite.tests} tests fail" if suite.failures else "the suite passes"
        parts = [f"# The newest libraries: {verdict}", f"{suite.tests} tests, {suite.skipped} skipped."]
        lines = [f"- `{one.test}`: {one.why}" for one in suite.failures[:MOST_FAILURES]]
        if more := len(suite.failures) - len(lines):
            lines.append(f"- and {more} more")
        if lines:
            parts += ["## What fails", "\n".join(lines)]
    if found:
        rows = [f"| {one.library} | {one.locked} | {one.here} | {one.newest or '-'} |" for one in found]
        head = "| library | in the lock | tried here | newer, not allowed by a range |\n| --- | --- | --- | --- |"
        parts += ["## What is not as in the lock", "\n".join([head, *rows])]
    else:
        parts.append("Every library is the one of the lock.")
    return "\n\n".join(parts) + "\n"


def required_libraries() -> set[str]:
    """Return the libraries that pyproject.toml names itself."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["calibrate"]]
    return {canonicalize_name(Requirement(text).name) for text in asked}


def newer_releases() -> dict[str, str]:
    """Return the releases on the package index newer than the installed ones, for libraries named in pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--outdated", "--format=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    outdated = json.loads(done.stdout) if done.returncode == 0 else []
    names = required_libraries()
    return {name: row["latest_version"] for row in outdated if (name := canonicalize_name(row["name"])) in names}


@click.command()
@click.argument("suite", type=click.Path(path_type=Path, dir_okay=False))
def latest_report(suite: Path) -> None:
    """Print the report of a run of the suite that wrote SUITE."""
    locked = locked_versions((_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    here: dict[str, str] = {
        name: one.version.partition("+")[0]
        for one in metadata.distributions()
        if (name := canonicalize_name(one.metadata["Name"])) in locked
    }
    ran = read_suite(suite.read_text(encoding="utf-8")) if suite.exists() else None
    click.echo(report_page(ran, changes(locked, here, newer_releases())), nl=False)


if __name__ == "__main__":
    console.run_and_exit(latest_report)
