"""Packs everything for a campaign on a card into one file, for a machine without internet.

python -m tools.gpu_bundle -o bundle.tar [--python 3.12 ...] [--present FILE] [--with-torch] [--device simulated]
[--most-mib N]

On that machine: `tar xf bundle.tar && python3 run.py`, and the same command again after every piece (`tools/gpu_run.py`
says how). The bundle holds this checkout's sources, the wheels of every Python version asked for, in the releases that
are installed here, and the plan. The web UI's libraries stay here. PyTorch is taken to be there, in a build for its
card; `--with-torch` carries it along. `--present` names what else is there (`python3 -m pip freeze > FILE` says it):
what is there in a release that will do is not carried, nor anything on its behalf, so name the file wherever the way
there takes no more than so many megabytes: transformers and matplotlib with what they need are most of a bundle.
What the largest packages take is told, and with `--most-mib` whether all of it is too much.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from acestep.units import MIB

_ROOT = Path(__file__).parent.parent

LEFT_OUT = frozenset({"gradio", "playwright", "ruff", "mypy", "pytest-xdist", "hatchling", "pip", "uv"})
"""Files that a campaign does not need: the web UI with its tests, tests of sources, and packing and installing."""

TORCH = "torch"

PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")
"""Platforms that a wheel may be built for; pip does not infer the older ones from the newest."""

MACHINE = "x86_64"

TOLD_PACKAGES = 5

BUNDLED_FOLDERS = ("acestep", "calibrate", "ci", "tests", "tiers", "tools", "examples")
BUNDLED_FILES = ("pyproject.toml", "profile_inference.py", "README.md", "LICENSE")

Needs = Callable[[str], Sequence[str]]
"""Returns the requirements of an installed package from its metadata; raises `LookupError` if it is not installed."""


class BundleStep(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a plan, with the placeholders `{out}` and `{python}`.

    It is run with `--resume` if the file `journal` is in `out`. After the exit codes `ends` it is done. If a `required`
    one fails, no later step starts. `feeds` is the journal of a later step that starts with the answers of this one.
    """

    name: str
    command: tuple[str, ...]
    journal: str = ""
    least_s: int = 60
    ends: tuple[int, ...] = (0,)
    required: bool = False
    feeds: str = ""


def campaign(name: str, *arguments: str, least_s: int = 60, feeds: str = "") -> BundleStep:
    """Return a run of `calibrate`, which resumes from its journal.

    `feeds` names a later one that starts with its answers.
    """
    command = ("{python}", "-m", "calibrate", "run", *arguments, "-o", f"{{out}}/{name}.json")
    return BundleStep(
        name=name, command=command, journal=_journal(name), least_s=least_s, feeds=_journal(feeds) if feeds else ""
    )


def _journal(name: str) -> str:
    return f"{name}.json.journal.jsonl"


def tests_of(path: Path) -> BundleStep:
    """Return the step for one file of tests, which skips finished ones; failed tests are results too.

    Warnings of the libraries there are shown but fail nothing: our own tests turn warnings into errors, and only this
    machine has the releases without warnings.
    """
    journal = f"{path.stem}.jsonl"
    # As one word, because pytest takes an existing path given as a separate word for one that determines its root
    # folder.
    told = ("-p", "no:cacheprovider", "-p", "tools.finished_tests", f"--finished-in={{out}}/{journal}")
    command = ("{python}", "-m", "pytest", "-W", "default", path.relative_to(_ROOT).as_posix(), *told)
    return BundleStep(name=path.stem, command=command, journal=journal, ends=(0, 1), least_s=240)


def measured_plan() -> tuple[BundleStep, ...]:
    """Return the steps on a card, the most informative first: its properties, kernels' memory, and which songs fit.

    Songs without a language model come first, in a separate campaign. The whole campaign starts with its answers, so
    the record of the whole campaign has all of them.
    """
    python = ("{python}", "-m")
    turbo = ("--device", "cuda", "--variant", "turbo")
    return (
        BundleStep(name="doctor", command=(*python, "acestep", "doctor", "--json")),
        BundleStep(
            name="smoke", command=(*python, "tools.card_smoke", "-o", "{out}/smoke.json"), least_s=120, required=True
        ),
        BundleStep(name="workspaces", command=(*python, "tools.card_workspaces", "-o", "{out}/workspaces.json")),
        BundleStep(
            name="history", command=(*python, "tools.record_history", "-o", "{out}/history.json.gz"), least_s=180
        ),
        campaign("turbo-without-lm", *turbo, "--lm", "none", feeds="turbo"),
        BundleStep(
            name="caps",
            command=(*python, "tools.card_caps", "-o", "{out}/caps.json"),
            journal="caps.json.journal.jsonl",
        ),
        *map(tests_of, sorted((_ROOT / "tests" / "gpu").glob("test_*.py"))),
        campaign("turbo", *turbo),
        BundleStep(name="speed", command=(*python, "tools.card_speed", "-o", "{out}/speed.json"), journal="speed.json"),
        campaign("xl-turbo", "--device", "cuda", "--variant", "xl-turbo"),
    )


def simulated_plan() -> tuple[BundleStep, ...]:
    """Return the steps of a trial of the bundle without a card."""
    smoke = ("{python}", "-m", "tools.card_smoke", "--device", "simulated", "-o", "{out}/smoke.json")
    return (
        BundleStep(name="smoke", command=smoke, least_s=1, required=True),
        campaign("trial", "--device", "simulated", "--tiers", "4", "--lm", "none", least_s=1),
    )


def needed_here(name: str) -> list[str]:
    """Return the requirements of an installed package from its metadata."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise LookupError(f"{name} is not installed here") from None


def pins(
    wanted: Sequence[str],
    python: str,
    present: Mapping[str, str],
    needs: Needs = needed_here,
    version_of: Callable[[str], str] = metadata.version,
) -> tuple[str, ...]:
    """Return what to include for a Python version so that all of `wanted` can be imported there, as `name==version`.

    `present` are releases that are installed there, by canonical name: a suitable one is left out, with its own
    requirements. A package that is needed there and not installed here has no release to pin, and is included with its
    requested range.
    """
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": MACHINE}
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    found: dict[str, str] = {}
    waiting = [(text, "") for text in reversed(wanted)]
    looked_at: set[tuple[str, str]] = set()
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        there = name in present and requirement.specifier.contains(present[name], prereleases=True)
        if there or name == TORCH or name in LEFT_OUT:
            continue
        try:
            further = needs(name)
            found[name] = f"{name}=={version_of(name).partition('+')[0]}"
        except LookupError:
            further = []
            found.setdefault(name, f"{name}{requirement.specifier}")
        for wish in ("", *sorted(requirement.extras)):
            if (name, wish) not in looked_at:
                looked_at.add((name, wish))
                waiting += [(text, wish) for text in further]
    return tuple(found[name] for name in sorted(found))


def present_in(frozen: str) -> dict[str, str]:
    """Return the releases in the output of `pip freeze`.

    Packages from other sources than an index have none and are included.
    """
    lines = (line.split("==") for line in frozen.splitlines() if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip().partition(";")[0] for name, version in lines}


def wanted_by(project: Mapping[str, Any]) -> list[str]:
    """Return the project's requirements, including test tools and the libraries for `calibrate`'s pages."""
    extra = project["project"]["optional-dependencies"]["calibrate"]
    return [*project["project"]["dependencies"], *extra, *project["dependency-groups"]["dev"]]


def fetch_wheels(asked: Sequence[str], python: str, folder: Path) -> None:
    """Download the wheels of these releases for a Python version on Linux, from pip's configured index."""
    folder.mkdir(parents=True, exist_ok=True)
    if asked:
        _pip_download(python, folder, "--no-deps", *asked)


def download_torch(carried: Sequence[str], python: str, folder: Path) -> tuple[str, ...]:
    """Download PyTorch and its requirements, which depend on the build that pip finds.

    Return everything included now.
    """
    apart, constraints = folder.parent.with_name(TORCH), folder.parent.with_name("constraints.txt")
    constraints.write_text("".join(f"{pin}\n" for pin in carried), encoding="utf-8")
    release = f"{TORCH}=={metadata.version(TORCH).partition('+')[0]}"
    _pip_download(python, apart, "--constraint", str(constraints), release)
    found = {canonicalize_name(pin.partition("==")[0]): pin for pin in carried}
    for wheel in apart.glob("*.whl"):
        name, version, *_ = wheel.name.split("-")
        found[canonicalize_name(name)] = f"{canonicalize_name(name)}=={version}"
        wheel.replace(folder / wheel.name)
    return tuple(found[name] for name in sorted(found))


def _pip_download(python: str, folder: Path, *asked: str) -> None:
    platforms = [option for name in PLATFORMS for option in ("--platform", f"{name}_{MACHINE}")]
    target = ["--python-version", python, "--implementation", "cp", *platforms, "--dest", str(folder)]
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:", *target]
    subprocess.run([*pip, *asked], check=True)  # noqa: S603 names and releases


def sources() -> list[Path]:
    """Return the files of this checkout that a campaign needs, including uncommitted ones."""
    listed = subprocess.run(  # noqa: S603 our own paths
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *BUNDLED_FOLDERS, *BUNDLED_FILES],  # noqa: S607
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [Path(name) for name in sorted({*listed.split("\0")} - {""}) if (_ROOT / name).is_file()]


def package_sizes(wheels: Path) -> dict[str, int]:
    """Bytes of all wheels of a package, the largest first."""
    sizes: Counter[str] = Counter()
    for wheel in wheels.glob("*.whl"):
        sizes[canonicalize_name(wheel.name.partition("-")[0])] += wheel.stat().st_size
    return dict(sizes.most_common())


def told_sizes(total: int, packages: Mapping[str, int], most_mib: float | None) -> str:
    """Return a sentence about the largest packages, and a warning if the bundle is too large."""
    largest = ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in list(packages.items())[:TOLD_PACKAGES])
    told = f"{total / MIB:.1f} MiB" + (f"; the largest packages: {largest}" if largest else "") + "\n"
    if most_mib is not None and total > most_mib * MIB:
        told += f"warning: that is more than {most_mib:g} MiB; name with --present what the other machine has already\n"
    return told


def write_bundle(target: Path, folder: Path, plan: Sequence[BundleStep]) -> None:
    """Write one archive of a folder with wheels and requirements, the sources, the plan and its runner."""
    (folder / "plan.json").write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2))
    with tarfile.open(target, "w") as archive:
        archive.add(_ROOT / "tools" / "gpu_run.py", "run.py", filter=_anonymous)
        for path in sources():
            archive.add(_ROOT / path, f"source/{path.as_posix()}", filter=_anonymous)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.add(path, path.relative_to(folder).as_posix(), filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove the user names and times of this machine: the same content gives the same archive."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the bundle that the command line asks for."""
    options = _options(arguments)
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    present = present_in(options.present.read_text(encoding="utf-8")) if options.present else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        for python in options.python:
            carried = pins(wanted_by(project), python, present)
            fetch_wheels(carried, python, folder / "wheels")
            if options.with_torch:
                carried = download_torch(carried, python, folder / "wheels")
            (folder / f"requirements-{python}.txt").write_text("".join(f"{pin}\n" for pin in carried), encoding="utf-8")
        packages = package_sizes(folder / "wheels")
        write_bundle(options.output, folder, simulated_plan() if options.device == "simulated" else measured_plan())
    total = options.output.stat().st_size
    sys.stderr.write(told_sizes(total, packages, options.most_mib))
    sys.stdout.write(json.dumps({"bundle": str(options.output), "bytes": total, "packages": packages}) + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("-o", "--output", type=Path, required=True, help="the archive to write")
    parser.add_argument("--python", nargs="+", default=[here], metavar="X.Y", help=f"for these (default: {here})")
    parser.add_argument("--present", type=Path, metavar="FILE", help="what `pip freeze` says on the other machine")
    parser.add_argument("--most-mib", type=float, metavar="N", help="warn where the bundle is larger than this")
    parser.add_argument("--with-torch", action="store_true", help="carry PyTorch and all that it needs")
    parser.add_argument("--device", choices=("cuda", "simulated"), default="cuda", help="`simulated` is a trial")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
