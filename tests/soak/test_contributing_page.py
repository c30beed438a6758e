"""CONTRIBUTING.md, followed to the letter: its five commands lead from a clone to a change that the gate lets through.

The card is simulated here, its tiers are one, and its songs last a minute. `make test` looks whether each command
of the page exists.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from calibrate.record.measurement import load_measurement
from tests.code_faults.fault import CodeFault
from tests.command_lines import ROOT
from tests.gate_house import committed
from tests.gate_trees import copy_of_tree, one_tier_house, put_in
from tests.integration.test_gate_contributing import CARD

pytestmark = pytest.mark.soak

QUICKLY = (
    CodeFault(
        "the guard's coefficients are left out",
        "calibrate/probes/simulated/prober.py",
        '        """Fit the model to a sweep of its own."""\n',
        "        return {}\n",
        "",
        "",
    ),
    CodeFault(
        "a campaign has one process",
        "calibrate/executors/local.py",
        "    return min(cores, MOST_PROCESSES)\n",
        "    return 1\n",
        "",
        "",
    ),
)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository like this one, with one tier, songs of a minute, and no published table to be compared with.

    The guard's coefficients are not fitted: that takes longer than all the rest. Nothing is quantized, and so few
    questions have no use for several processes: to quantize and to import takes as long as to answer them.
    """
    tree = copy_of_tree(tmp_path / "upstream")
    for change in QUICKLY:
        put_in(tree, change)
    shutil.rmtree(tree / "tiers")
    house = one_tier_house(None, seconds=60)
    house.table["shortfalls"] = []
    house.written(tree)
    (tree / "tiers" / "published_tiers.json").write_text('{"tiers": []}', encoding="utf-8")
    (tree / ".gitignore").write_text((ROOT / ".gitignore").read_text(encoding="utf-8") + "/.venv\n", encoding="utf-8")
    committed(tree)
    return tree


def tried(line: str, upstream: Path) -> str:
    """A line of the page as this machine can follow it."""
    for said, here in (
        ("<this repository>", str(upstream)),
        ("make install", f"ln -s {ROOT / '.venv'} .venv"),
        ("--device cuda --tiers 4 5 7 8 12", "--device simulated --tiers 4 --lm none"),
        ("--base origin/main", "--base origin/HEAD --json"),
    ):
        line = line.replace(said, here)
    return line


def test_the_page_leads_to_a_pull_request_that_the_gate_lets_through(upstream: Path, tmp_path: Path) -> None:
    people = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    environment = {**os.environ, **dict.fromkeys(people, "test@example.org"), "OMP_NUM_THREADS": "1"}
    environment.pop("GITHUB_ACTIONS", None)
    said: dict[str, Any] = {"check": False, "capture_output": True, "text": True, "env": environment}
    folder = tmp_path
    for line in CARD.splitlines():
        command = ["bash", "-euc", tried(line, upstream)]
        done = subprocess.run(command, cwd=folder, **said)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        folder = tmp_path / "ace-step"
    judgement = json.loads(done.stdout)
    assert (judgement["verdict"], judgement["compared"]["records"]) == ("ok", 2)
    record = load_measurement(folder / "tiers" / "measurements" / "rtx-3060.json")
    table = json.loads((folder / "tiers" / "generated_tiers.json").read_text(encoding="utf-8"))
    assert record.digest in table["generated_from"]["records"]
