"""The project's extras, and what uv resolves them to."""

import subprocess
import sys
import tomllib
from functools import cache
from itertools import chain, combinations
from pathlib import Path

import pytest

from tests.command_lines import ROOT

PROJECT = ROOT / "pyproject.toml"
EXTRAS = tuple(sorted(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]))
COMBINATIONS = tuple(chain.from_iterable(combinations(EXTRAS, size) for size in range(len(EXTRAS) + 1)))

_UNREACHABLE = ("client error (Connect)", "dns error", "operation timed out", "error sending request")


@cache
def resolve(extras: tuple[str, ...], project: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """What `uv pip compile` says of a project with these extras, for every platform; skips the test offline."""
    command = [sys.executable, "-m", "uv", "pip", "compile", str(project), "--universal"]
    command += ["--no-config", "--no-python-downloads", *chain.from_iterable(("--extra", extra) for extra in extras)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    if done.returncode and any(sign in done.stderr for sign in _UNREACHABLE):
        pytest.skip("the package index is not reachable")
    return done


def packages(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The names in a solution; an assertion where there is none."""
    assert done.returncode == 0, done.stderr
    return {line.split("==")[0] for line in done.stdout.splitlines() if "==" in line}
