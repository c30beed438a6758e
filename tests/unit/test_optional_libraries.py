"""What the package needs is declared, what only some commands need is an extra, and its absence is one sentence."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from acestep.errors import Exit
from calibrate.extras import OF_EXTRAS
from tests.command_lines import ROOT
from tests.processes import imported_by

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECORD = ROOT / "tiers" / "measurements" / "simulated-turbo.json"
TABLE = ROOT / "tiers" / "generated_tiers.json"
ASKED_FOR_BY_NAME = {"vllm", "mlx", "mlx_lm", "flash_attn", "ray", "triton"}
"""Imported only where a person has installed them, by extra or by hand, or where PyTorch brings them."""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


NEEDED = names(PROJECT["dependencies"])
EXTRA = names(PROJECT["optional-dependencies"]["calibrate"])


def imported(package: str) -> Iterator[tuple[Path, str]]:
    """Every module of another package that a file of ours imports, by its first name."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found = [node.module]
            else:
                continue
            yield from ((path, name.partition(".")[0]) for name in found)


@pytest.mark.parametrize(("package", "allowed"), [("acestep", NEEDED), ("calibrate", NEEDED | EXTRA)])
def test_every_library_that_is_imported_is_declared(package: str, allowed: set[str]) -> None:
    distributions = packages_distributions()
    ours = {"acestep", "calibrate"} | sys.stdlib_module_names | ASKED_FOR_BY_NAME
    undeclared = {
        (path.name, name)
        for path, name in imported(package)
        if name not in ours and not {canonicalize_name(one) for one in distributions.get(name, [name])} & allowed
    }
    assert undeclared == set()


def test_the_libraries_of_the_extra_are_those_that_the_message_knows() -> None:
    assert {library for library, extra in OF_EXTRAS.items() if extra == "calibrate"} == EXTRA
    assert not EXTRA & NEEDED


def without(hidden: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`calibrate` in a process that has no `hidden`."""
    code = f"import sys; sys.modules[{hidden!r}] = None; from calibrate.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("hidden", "extra", "arguments"),
    [
        ("matplotlib", "calibrate", "render --check"),
        ("matplotlib", "calibrate", "report --pr --base HEAD"),
        ("ray", "ray", "run --executor ray --cards all -o {out}"),
        ("ray", "ray", "run --executor ray --json -o {out}"),
    ],
)
def test_where_one_is_missing_a_sentence_says_what_to_type(
    hidden: str, extra: str, arguments: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = without(hidden, *arguments.format(out=out).split())
    assert done.returncode == Exit.RUN_FAILED
    assert done.stderr.count("\n") == 1
    assert f"needs {hidden}" in done.stderr
    assert f"pip install 'acestep-calibrated[{extra}]'" in done.stderr
    assert not out.exists()
    if "--json" in arguments:
        assert json.loads(done.stdout)["error"]["exit_code"] == Exit.RUN_FAILED
    else:
        assert done.stdout == ""


def test_nothing_imports_ray_unless_it_is_asked() -> None:
    imported = imported_by("-m", "calibrate", "run", "--dry-run")
    assert "calibrate.commands.run_fleet" in imported
    assert not {name for name in imported if name.partition(".")[0] == "ray"}


@pytest.mark.parametrize("arguments", [f"compare {TABLE} {TABLE}", f"validate {RECORD}", "--help"])
def test_commands_that_make_no_page_do_without(arguments: str) -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(('jinja2', 'matplotlib', 'pandas')));"
    code += " from calibrate.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == Exit.OK, done.stderr
