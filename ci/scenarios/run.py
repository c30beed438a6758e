"""Plays a scenario on a simulated machine."""

from pathlib import Path
from tempfile import TemporaryDirectory

from calibrate.probes.simulated.memo import Regions
from ci.scenarios.entry_points import ENTRY_POINTS
from ci.scenarios.machine import Machine
from ci.scenarios.scenario import Scenario, ScenarioResult


def outcome_of(scenario: Scenario, known: Regions) -> ScenarioResult:
    """Return what came of a scenario; raises as its requests do, and `NotMeasuredError` where nothing can be seen."""
    machine = Machine(scenario, known)
    with TemporaryDirectory() as place:
        with machine.running(Path(place)):
            offers = ENTRY_POINTS[scenario.entry](scenario.requests, Path(place))
        return machine.report(offers)
