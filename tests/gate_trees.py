"""Copies of the tree for the gate to judge, with faults put into their code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from acestep.knobs import Knobs, Quantization, Variant
from calibrate.probes.base import ProbeResult
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.table.policy import Policy, load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.code_faults.fault import CodeFault
from tests.fakes import measured, result
from tests.gate_house import House, committed

ROOT = Path(__file__).parent.parent


class FewCells(SimulatedProber):
    """The simulated card as it answers about a few cells; nothing else fits, so that nothing else is traced."""

    def __init__(self, cells: Collection[tuple[Knobs, Workload]]) -> None:
        super().__init__()
        self._cells = cells

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        if (knobs, workload) in self._cells:
            return super().probe(knobs, workload, cap_bytes)
        return result(Verdict.OOM, workload, cap_bytes, peak=1)

    def memory_model(self, variant: Variant) -> dict[str, float]:
        return {}


def one_tier_policy(quantization: Quantization | None, seconds: int, card_gib: int) -> Policy:
    """A policy with one tier for every card, one rung and one length."""
    policy = json.loads(msgspec.json.encode(load_policy()))
    every_card = {**policy["tiers"][-1]["vram_gib"], "lower": 0}
    tier = policy["tiers"][0] | {"vram_gib": every_card, "certified_gib": card_gib}
    rung = {"offload": "cpu+dit", "quantization": quantization, "why": "The only rung of this test."}
    durations = policy["durations_s"] | {"values": [seconds]}
    return msgspec.convert(policy | {"tiers": [tier], "preference": [rung], "durations_s": durations}, Policy)


def one_tier_house(quantization: Quantization | None, *, seconds: int = 600, card_gib: int = 8, lm: str = "") -> House:
    """What a simulated card proves about one song, measured with the code of this tree."""
    policy = one_tier_policy(quantization, seconds, card_gib)
    rung = policy.preference[0]
    knobs = Knobs(offload=rung.offload, quantization=rung.quantization)
    cells = [(knobs, Workload(batch=1, duration_s=float(seconds)))]
    if lm:
        thinking = msgspec.structs.replace(knobs, lm=lm)
        cells.append((thinking, Workload(batch=1, duration_s=float(seconds), with_lm=True)))
    return House(measured(FewCells(cells), policy=policy), policy)


def copy_of_tree(place: Path) -> Path:
    """What the gate needs of this tree, in another place."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("acestep", "calibrate", "ci", "tiers"):
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, place)
    return place


def turbo_tree(place: Path) -> Path:
    """A repository with a commit of this tree that knows of turbo alone."""
    tree = copy_of_tree(place / "tree")
    for record in (tree / "tiers" / "measurements").glob("*.json"):
        if record.name != "simulated-turbo.json":
            record.unlink()
    subprocess.run([sys.executable, "-m", "calibrate", "merge"], cwd=tree, check=True, capture_output=True)
    committed(tree)
    return tree


def one_tier_tree(place: Path, house: House, *, doors: bool = False) -> Path:
    """A repository with a commit of this tree that has a house as its tiers.

    Its gate judges the cells of the table alone, unless it is to judge other runs (`ci/doors.py`) too.
    """
    tree = copy_of_tree(place / "tree")
    published = (tree / "tiers" / "published_tiers.json").read_bytes()
    shutil.rmtree(tree / "tiers")
    house.written(tree)
    (tree / "tiers" / "published_tiers.json").write_bytes(published)
    if doors:
        leave_out_scenarios(tree)
    else:
        leave_out_doors(tree)
    committed(tree)
    return tree


def leave_out_doors(tree: Path) -> None:
    """Let the gate of a tree judge the cells of its table alone, which is faster."""
    leave_out_scenarios(tree)
    _add_to(tree / "ci" / "doors.py", "DOORS = ()\ndef drawn_doors(seed): return ()\n")


def leave_out_scenarios(tree: Path) -> None:
    """Let the gate of a tree play no scenarios."""
    _add_to(tree / "ci" / "scenarios" / "all_scenarios.py", "SCENARIOS = ()\n")


def _add_to(path: Path, code: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(code)


def put_in(tree: Path, fault: CodeFault) -> None:
    """Change the tree's code; `AssertionError` where the place to change is not there exactly once."""
    path = tree / fault.file
    text = path.read_text(encoding="utf-8")
    assert text.count(fault.before) == 1, f"{fault.file} no longer says {fault.before!r}; say it as it is now"
    path.write_text(text.replace(fault.before, fault.after), encoding="utf-8")


def gated(tree: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of the gate against the tree's commit."""
    command = [sys.executable, "-m", "ci.gate", "--base", "HEAD", "--json", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("GITHUB_ACTIONS", None)
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def named(document: dict[str, Any], fault: CodeFault) -> list[dict[str, Any]]:
    """The findings that name the fault's stage and the component that grew."""
    return [
        finding
        for finding in document["findings"]
        if (finding["stage"], finding["component"]) == (fault.stage, fault.component)
        and finding["id"] in fault.rules
        and finding["level"] == "error"
    ]
