"""A pull request as the gate's workflow sees it: the base and the change side by side, and the workflow's commands."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.gate_trees import ROOT

INSTALLS = ("make install", "make virtual-card")
GIT = ("-c", "user.name=test", "-c", "user.email=test@example.org")


def pull_request(upstream: Path, place: Path) -> tuple[Path, Path]:
    """The checkouts `judge` and `head` of a repository; the judge's libraries are those of this tree."""
    for name in ("judge", "head"):
        _git(place, "clone", "-q", str(upstream), name)
    (place / "judge" / ".venv").symlink_to(ROOT / ".venv")
    return place / "judge", place / "head"


def commit_all(checkout: Path) -> None:
    """Make a commit of everything in a checkout."""
    for arguments in (("add", "-A", "-f"), (*GIT, "commit", "-q", "-m", "a change")):
        _git(checkout, *arguments)


def run_workflow(
    name: str, place: Path, options: str = "", environ: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """The last step of a workflow that is run, as it runs there, with its steps before; nothing is installed.

    `options` are added to each command.
    """
    document = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    (job,) = document["jobs"].values()
    base = _git(place / "judge", "rev-parse", "HEAD").strip()
    environment = {**environ, "BASE": base, "GITHUB_STEP_SUMMARY": str(place / "summary"), "OMP_NUM_THREADS": "1"}
    environment.pop("GITHUB_ACTIONS", None)
    done = None
    for step in job["steps"]:
        if "run" in step and step["run"] not in INSTALLS:
            command = ["bash", "-eo", "pipefail", "-c", f"{step['run']} {options}"]
            folder = place / step["working-directory"]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                break
    assert done is not None
    return done


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
