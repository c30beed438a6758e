"""Builds the wheel, installs it in an empty environment without a checkout, and runs what a new user runs.

python -m tools.release_check [--constraint FILE] [--tag vX.Y.Z]

With `--tag`, package, tag and the newest entry of CHANGELOG.md must have one version. Exit code 0 if everything works.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

import click

from acestep.cli import console
from acestep.errors import RunFailedError

_ROOT: Final = Path(__file__).parent.parent

COMMANDS: Final = (
    "acestep --version",
    "acestep plan",
    "acestep plan --vram 8 --json",
    "acestep tiers",
    "acestep doctor",
    "acestep doctor --json",
    "acestep generate --model tiny --caption piano --duration 2 --seed 7 --out songs --json",
    "acestep-calibrate --help",
)
"""The commands that must end with exit code 0 after `pip install`, without an extra."""


def missing_from(names: set[str], root: Path = _ROOT) -> list[str]:
    """Return what is missing from a wheel with these files: modules of the two packages and the files next to them."""
    ours = [path for package in ("acestep", "calibrate") for path in (root / package).rglob("*") if path.is_file()]
    wanted = {path.relative_to(root).as_posix() for path in ours if path.suffix != ".pyc"}
    wanted |= {f"acestep/data/{name}.json" for name in ("generated_tiers", "policy", "published_tiers")}
    return sorted(wanted - names)


def newest_entry(changelog: str) -> str:
    """Return the version of the first entry of a changelog; "" if there is none."""
    found = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    return found[1] if found else ""


@click.command()
@click.option("--constraint", type=click.Path(exists=True, path_type=Path), help="Install these versions.")
@click.option("--tag", default="", metavar="vX.Y.Z", help="The tag that is released; must name the version.")
def check(constraint: Path | None, tag: str) -> None:
    """Build, install and try the package as a new user would."""
    release = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag:
        require_one_version(release, newest_entry((_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), tag)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")], _ROOT)
        (wheel,) = (folder / "dist").glob("*.whl")
        if lost := missing_from(set(zipfile.ZipFile(wheel).namelist())):
            raise RunFailedError(f"{wheel.name} lacks {', '.join(lost)}")
        console.notify(f"{wheel.name} has every file")
        venv, home = folder / "venv", folder / "home"
        home.mkdir()
        _run([sys.executable, "-m", "venv", str(venv)], home)
        pins = [] if constraint is None else ["--constraint", str(constraint.resolve())]
        _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *pins, str(wheel)], home)
        for line in COMMANDS:
            program, *arguments = line.split()
            said = _run([str(venv / "bin" / program), *arguments], home)
            if "--json" in arguments:
                json.loads(said)
            console.notify(f"works: {line}")
        if len(list((home / "songs").glob("*.flac"))) != 1:
            raise RunFailedError("generate ended well and wrote no song")


def require_one_version(release: str, entry: str, tag: str) -> None:
    """Raise `RunFailedError` unless package, changelog and tag have the same version."""
    if entry != release:
        raise RunFailedError(f"CHANGELOG.md begins with {entry or 'no version'}, pyproject.toml has {release}")
    if tag != f"v{release}":
        raise RunFailedError(f"the tag is {tag}, pyproject.toml has {release}")


def _run(command: list[str], folder: Path) -> str:
    """Return a command's stdout; raise `RunFailedError` with all its output if it fails."""
    apart = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(  # noqa: S603 commands of this file
        command, cwd=folder, env=apart, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    console.run_and_exit(check)
