"""The gate with `--virtual`: code that takes memory only on CUDA is red, and the same code without it is green."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acestep.errors import Exit
from tests.code_faults.cuda import BEFORE_THE_STEPS, CUDA_FAULTS, DENOISE
from tests.code_faults.fault import CodeFault
from tests.gate_house import committed
from tests.gate_trees import copy_of_tree, leave_out_doors, one_tier_house
from tests.gate_workflow import commit_all, pull_request, run_workflow
from tests.virtual.processes import ROOT, bare_environ
from virtual_card.build import BUILDS

JUDGE = ROOT / ".venv" / "bin" / "python"
"""The gate runs in the environment of `make install`, and finds this one beside it."""

pytestmark = [
    # Each gate loads a full-size model, twice where it runs on the card.
    pytest.mark.timeout(1000),
    pytest.mark.skipif(not JUDGE.exists(), reason="the gate needs the environment that `make install` makes"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit of this tree that promises one song, and the card beside it."""
    tree = copy_of_tree(tmp_path_factory.mktemp("gate") / "tree")
    published = (tree / "tiers" / "published_tiers.json").read_bytes()
    shutil.rmtree(tree / "tiers")
    one_tier_house(None, seconds=60, card_gib=8).written(tree)
    (tree / "tiers" / "published_tiers.json").write_bytes(published)
    shutil.copytree(ROOT / "virtual_card", tree / "virtual_card", ignore=shutil.ignore_patterns("build", "__pycache__"))
    leave_out_doors(tree)
    committed(tree)
    return tree


def gated(tree: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of the gate of the tree's commit on the tree."""
    command = [str(JUDGE), "-m", "ci.gate", "--base", "HEAD", "--json", *options]
    environ = {**bare_environ(), "OMP_NUM_THREADS": "1"}
    environ.pop("GITHUB_ACTIONS", None)
    done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, check=False, timeout=500)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def errors(document: dict[str, Any]) -> set[tuple[str, str]]:
    """The rules that stop the change, each with its stage."""
    return {(found["id"], found["stage"]) for found in document["findings"] if found["level"] == "error"}


@contextmanager
def changed(tree: Path, file: str, before: str, after: str) -> Iterator[None]:
    """The tree with one place of a file changed."""
    path = tree / file
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{file} no longer says {before!r} once"
    path.write_text(text.replace(before, after), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def in_the_workflow(place: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and document of the gate as the workflow runs it on a pull request."""
    done = run_workflow("gate", place, "--json", bare_environ())
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_code_that_takes_memory_on_cuda_alone_is_red_in_the_workflow_with_the_virtual_card_only(
    tree: Path, tmp_path: Path
) -> None:
    judge, head = pull_request(tree, tmp_path)
    fault = CUDA_FAULTS[0]
    with changed(head, fault.file, fault.before, fault.after):
        commit_all(head)
        code, document = in_the_workflow(tmp_path)
        assert code == Exit.NOT_MEASURED
        # It asks for the device; no more is seen, and the gate says what is missing.
        assert errors(document) == {("G206", ""), ("G203", "")}
        assert "`make virtual-card` makes it" in document["findings"][0]["message"] + document["findings"][1]["message"]
        # What `make virtual-card` makes there.
        (judge / ".venv-virtual").symlink_to(ROOT / ".venv-virtual")
        (judge / "virtual_card" / "build").symlink_to(BUILDS)
        code, document = in_the_workflow(tmp_path)
    assert code == Exit.REGRESSED
    # What is kept is there in the next stage too.
    assert errors(document) == {("G206", ""), ("G302", "denoise"), ("G302", "decode")}


@pytest.mark.soak
@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in CUDA_FAULTS[1:]])
def test_every_change_that_takes_memory_on_cuda_alone_is_red_on_the_virtual_card(tree: Path, fault: CodeFault) -> None:
    with changed(tree, fault.file, fault.before, fault.after):
        code, document = gated(tree, "--virtual")
    assert code == Exit.REGRESSED, document
    found = errors(document)
    assert ("G302", fault.stage) in found
    assert {rule for rule, _ in found} == set(fault.rules)


def test_a_change_that_takes_nothing_runs_on_the_card_and_is_green(tree: Path) -> None:
    with changed(tree, DENOISE, BEFORE_THE_STEPS, "    # One more line.\n" + BEFORE_THE_STEPS):
        code, document = gated(tree, "--virtual")
    assert code == Exit.OK, document


def test_without_a_change_of_code_nothing_runs_on_the_card(tree: Path) -> None:
    code, document = gated(tree, "--virtual")
    assert code == Exit.OK, document
    assert document["compared"]["cells"] == 1
