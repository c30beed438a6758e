"""A record of the simulated card is equal to the simulation in every probe, those that ran out of memory included."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from acestep.knobs import Knobs
from acestep.units import MIB
from calibrate.campaign.physics import physics
from calibrate.files import pretty_json
from calibrate.probes.base import ProbeResult
from calibrate.probes.work import WorkTotals
from calibrate.record.contributed import validate
from calibrate.record.measurement import Measurement
from calibrate.record.rules import RuleLevel
from calibrate.table.merge import build_table
from calibrate.table.policy import load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.damage import sealed
from tests.fakes import AnalyticProber, measured
from tests.gate_house import good, judged, stopping
from tests.lies import HONEST, accepted, lied, raised

BYTES = ("peak_allocated_bytes", "peak_reserved_bytes", "resident_bytes", "allowance_bytes")

ONLY_SIMULATED = (7, 8, 14, 24, 25)
"""Lies about the simulated card that follow every rule of measurement files."""

HARMLESS = (10, 12, 15, 18, 19)
"""Lies that no rule refuses: they only leave something out."""


def broken(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The rules that a document breaks in the simulation, and where."""
    record = msgspec.convert(document, Measurement)
    return [(found.rule.id, found.field) for found in physics(record, AnalyticProber(), lambda _: None, exact=True)]


def honest() -> Any:
    return json.loads(pretty_json(HONEST))


def test_an_honest_record_is_equal() -> None:
    assert broken(honest()) == []


class Counting(AnalyticProber):
    """The same card, which also counts work: in every stage the same."""

    work = WorkTotals(flops=1, memory_bytes=2, launches=3, transferred_bytes=4, waits=5)

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        found = super().probe(knobs, workload, cap_bytes)
        stages = tuple(msgspec.structs.replace(stage, work=self.work) for stage in found.stages)
        return msgspec.structs.replace(found, stages=stages)


@pytest.mark.parametrize(("waits", "equal"), [(5, True), (msgspec.UNSET, True), (4, False)])
def test_a_record_of_a_release_that_counted_no_waits_is_equal_without_them(waits: Any, equal: bool) -> None:
    class Earlier(Counting):
        work = msgspec.structs.replace(Counting.work, waits=waits)

    record = measured(Earlier(), sizes=(8,))
    found = list(physics(record, Counting(), lambda _: None, exact=True))
    assert (not found) == equal
    assert all(one.field.endswith(".work") for one in found)


@pytest.mark.parametrize("verdict", [Verdict.FITS, Verdict.OOM])
@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("by", [-1, 1])
def test_one_byte_in_any_stage_of_any_probe_is_found(verdict: Verdict, name: str, by: int) -> None:
    draw = random.Random(f"{verdict} {name} {by}")  # noqa: S311 it draws a probe, not a secret
    document = honest()
    number = draw.choice([n for n, probe in enumerate(document["probes"]) if probe["verdict"] == verdict])
    place = draw.randrange(len(document["probes"][number]["stages"]))
    stage = document["probes"][number]["stages"][place]
    stage[name] = max(stage[name] + by, 0) or 1
    assert broken(document) == [("V205", f"probes[{number}].stages[{place}].{name}")]


def _without_a_stage(probe: dict[str, Any]) -> str:
    probe["stages"].pop()
    return "stages"


def _with_a_stage(probe: dict[str, Any]) -> str:
    probe["stages"].append(probe["stages"][-1] | {"name": "more"})
    return "stages"


def _another_name(probe: dict[str, Any]) -> str:
    probe["stages"][0]["name"] = "other"
    return "stages"


def _another_verdict(probe: dict[str, Any]) -> str:
    probe["verdict"] = "crashed"
    return "verdict"


def _fewer_songs(probe: dict[str, Any]) -> str:
    probe["songs_per_pass"] += 1
    return "songs_per_pass"


def _on_the_cpu(probe: dict[str, Any]) -> str:
    probe["decode_path"] = "cpu"
    return "decode_path"


@pytest.mark.parametrize(
    "change", [_without_a_stage, _with_a_stage, _another_name, _another_verdict, _fewer_songs, _on_the_cpu]
)
@pytest.mark.parametrize("verdict", [Verdict.FITS, Verdict.OOM])
def test_another_end_of_any_probe_is_found(change: Callable[[dict[str, Any]], str], verdict: Verdict) -> None:
    document = honest()
    document["certificates"] = []
    number = [n for n, probe in enumerate(document["probes"]) if probe["verdict"] == verdict][-1]
    field = change(document["probes"][number])
    assert broken(document) == [("V205", f"probes[{number}].{field}")]


@pytest.mark.parametrize("seed", ONLY_SIMULATED)
def test_a_lie_that_only_the_simulation_can_tell_is_found(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "lie.json"
    path.write_bytes(sealed(lied(seed, simulated=True)))
    assert not [finding for finding in validate(path) if finding.level is RuleLevel.ERROR]
    assert {rule for rule, _ in broken(json.loads(path.read_text(encoding="utf-8")))} == {"V205"}


@pytest.mark.parametrize("seed", HARMLESS)
def test_a_lie_that_is_not_found_raises_no_promise(seed: int, tmp_path: Path) -> None:
    record = accepted(lied(seed, simulated=True), tmp_path)
    assert record is not None
    assert raised(build_table([HONEST], load_policy()), build_table([record], load_policy())) == []


def test_the_gate_refuses_a_simulated_record_that_is_a_little_better_than_the_code(tmp_path: Path) -> None:
    class Better(AnalyticProber):
        """Needs a little less, as within the tolerance of a real card."""

        def resting_bytes(self, *asked: Any) -> int:
            return super().resting_bytes(*asked) - MIB

    forged, record = copy.deepcopy(good()), measured(Better())
    forged.record = json.loads(pretty_json(record))
    forged.table = json.loads(pretty_json(build_table([record], load_policy())))
    assert "G108" in stopping(judged(forged, tmp_path / "forged"))
    assert "G108" not in stopping(judged(forged, tmp_path / "true", prober=Better()))
