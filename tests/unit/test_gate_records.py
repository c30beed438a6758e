"""Which code a record may come from: what this repository holds, at any of its commits, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from ci.code_versions import is_known, versions_of_commits
from tests.gate_house import committed
from tests.gate_trees import copy_of_tree


def version_in(tree: Path) -> str:
    """What the tree itself would write into a record."""
    program = "from calibrate.fingerprint import code_version; print(code_version())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_code_of_every_commit_is_known_and_code_that_was_never_committed_is_not(tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path / "tree")
    first = version_in(tree)
    committed(tree)
    probes = tree / "calibrate" / "probes" / "base.py"
    probes.write_text(probes.read_text(encoding="utf-8") + "# another\n", encoding="utf-8")
    second = version_in(tree)
    assert is_known(tree, "HEAD", first)
    assert not is_known(tree, "HEAD", second)
    committed(tree)
    assert list(versions_of_commits(tree, "HEAD")) == [second, first]


@pytest.mark.parametrize("version", ["", "0.1.0", "0.1.0+tree.zz", "$(id)", "0.1.0+tree." + "7" * 16])
def test_anything_else_is_unknown_and_so_is_everything_without_git(version: str, tmp_path: Path) -> None:
    assert not is_known(tmp_path, "HEAD", version)
