"""A record of the simulated card has to be equal to it only where the same code and libraries simulate it."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from acestep.errors import InvalidInputError
from acestep.stage import Stage
from calibrate.campaign.physics import require_possible
from calibrate.fingerprint import LIBRARIES
from calibrate.record.measurement import Measurement
from calibrate.verdict import Verdict
from tests.fakes import AnalyticProber
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
