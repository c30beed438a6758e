"""A record of the simulated card has to be equal to it only where the same code and libraries simulate it."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from acestep.errors import InvalidInputError
from acestep.knobs import Knobs
from acestep.stage import Stage
from acestep.units import MIB
from calibrate.campaign.physics import findings_of, require_possible
from calibrate.files import pretty_json
from calibrate.fingerprint import LIBRARIES
from calibrate.record.measurement import Measurement
from calibrate.record.rules import RuleLevel
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import AnalyticProber, Hungry, measured
from tests.lies import HONEST

Change = Callable[[Measurement], Measurement]
OTHER_CODE = "0.0.1+tree.0123456789abcdef"


def grown(share: float) -> Measurement:
    """One run of the honest record that fits, and of which denoising takes a share of what it takes."""
    probe = next(probe for probe in HONEST.probes if probe.verdict is Verdict.FITS)
    stages = tuple(
        msgspec.structs.replace(stage, peak_allocated_bytes=int(stage.peak_allocated_bytes * share))
        if stage.name == Stage.DENOISE
        else stage
        for stage in probe.stages
    )
    return msgspec.structs.replace(HONEST, probes=(msgspec.structs.replace(probe, stages=stages),), certificates=())


def of_other_code(record: Measurement) -> Measurement:
    return msgspec.structs.replace(record, code_version=OTHER_CODE)


def with_other(library: str) -> Change:
    def change(record: Measurement) -> Measurement:
        environment = msgspec.structs.replace(record.environment, **{library: "0.0.1"})
        return msgspec.structs.replace(record, environment=environment)

    return change


@pytest.fixture(autouse=True)
def a_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation is the formula that the honest record comes from."""
    monkeypatch.setattr("calibrate.campaign.physics.simulation_of", lambda *_: AnalyticProber())


def is_possible(record: Measurement) -> bool:
    try:
        require_possible(Path("record.json"), record, lambda _: None)
    except InvalidInputError:
        return False
    return True


@pytest.mark.parametrize("change", [of_other_code, *map(with_other, LIBRARIES)])
def test_other_code_or_libraries_are_compared_within_the_tolerance(change: Change) -> None:
    assert is_possible(grown(1.0))
    assert not is_possible(grown(1.005))
    assert is_possible(change(grown(1.005)))
    assert not is_possible(change(grown(1.2)))


def test_another_python_is_no_other_simulation() -> None:
    assert is_possible(with_other("python")(grown(1.0)))
    assert not is_possible(with_other("python")(grown(1.005)))


def validated(record: Measurement, folder: Path) -> tuple[list[str], str]:
    """The rules that stop a record's file at `calibrate validate`, and all that is said meanwhile."""
    path, said = folder / "record.json", list[str]()
    path.write_text(pretty_json(record.sealed()), encoding="utf-8")
    found = findings_of(path, said.append)
    return [one.id for one in found if one.level is RuleLevel.ERROR], " ".join(said)


@pytest.mark.parametrize("change", [of_other_code, *map(with_other, LIBRARIES)])
def test_a_change_that_takes_less_memory_is_not_refused_by_the_base(change: Change, tmp_path: Path) -> None:
    class Less(AnalyticProber):
        def music_bytes(self, knobs: Knobs, workload: Workload) -> int:
            return int(super().music_bytes(knobs, workload) * 0.96)

    record = change(measured(Less()))
    refused, said = validated(record, tmp_path)
    assert refused == []
    assert "not compared with the simulation" in said
    assert not is_possible(record)


def test_the_name_of_a_file_gives_no_line_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "a\n::error::b"
    folder.mkdir()
    assert "\n" not in validated(of_other_code(HONEST), folder)[1]


def test_a_record_of_this_code_is_compared(tmp_path: Path) -> None:
    assert validated(HONEST, tmp_path)[0] == []
    refused, said = validated(measured(Hungry(MIB)), tmp_path)
    assert set(refused) == {"V205"}
    assert "not compared" not in said
