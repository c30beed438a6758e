"""One file has the exact version of everything that `make install` brings, and nothing of the machine that made it."""

import re
import tomllib
from collections import defaultdict

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.command_lines import ROOT

LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LOCK if not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WANTED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["calibrate"],
    *PROJECT["dependency-groups"]["dev"],
    *PROJECT["build-system"]["requires"],
]
LEANED_ON = {"torch", "torchao", "transformers", "diffusers", "gradio", "msgspec", "huggingface-hub", "vllm", "mlx-lm"}
"""Libraries whose inner parts are used, so that a release that was not tried can break us."""


def test_every_line_is_an_exact_public_version() -> None:
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert Version(specifier.version).local is None, f"{pin} is one machine's build"
        assert pin.url is None


def test_nothing_of_the_machine_that_made_it_is_in_it() -> None:
    for line in LOCK:
        assert not re.search(r"://|\bfile:|/|\\|--|sha256", line.replace("make lock", "")), line


@pytest.mark.parametrize("text", WANTED)
def test_everything_that_is_installed_is_in_it_in_a_version_that_pyproject_allows(text: str) -> None:
    wanted = Requirement(text)
    name = canonicalize_name(wanted.name)
    versions = [next(iter(pin.specifier)).version for pin in PINS if canonicalize_name(pin.name) == name]
    assert versions, f"{name} is not locked; run `make lock`"
    assert all(wanted.specifier.contains(version) for version in versions)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_on_every_platform_a_package_has_one_version(python: str, system: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    found = defaultdict(set)
    for pin in PINS:
        if pin.marker is None or Marker(str(pin.marker)).evaluate(environment):
            found[canonicalize_name(pin.name)].add(str(pin.specifier))
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}
    assert found["torch"]


def test_libraries_that_we_lean_on_end_at_the_next_minor_that_was_not_tried() -> None:
    optional = [text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra]
    bounded = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, [*PROJECT["project"]["dependencies"], *optional])
        if any(part.operator == "<" for part in requirement.specifier)
    }
    assert bounded >= LEANED_ON


def test_install_uses_it_and_every_other_way_to_run_the_suite_uses_install() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (install,) = re.findall(r"^\$\(VENV\)/\.installed:.*\n(?:\t.*\n)+", makefile, re.MULTILINE)
    assert "$(LOCK)" in install.splitlines()[0]
    installing = [line for line in install.splitlines() if "tools/install.py" in line]
    assert installing
    assert all("--constraint $(LOCK)" in line for line in installing)
    for path in [ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").glob("*.yml")]:
        assert "pip install" not in path.read_text(encoding="utf-8")
