"""Plays a scenario on a simulated machine."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from acestep.tiers import TierTable, load_tiers
from calibrate.probes.simulated.memo import Regions
from ci.scenarios.entry_points import ENTRY_POINTS
from ci.scenarios.machine import Machine
from ci.scenarios.scenario import Scenario, ScenarioResult


def outcome_of(scenario: Scenario, table: str, known: Regions) -> ScenarioResult:
    """Return what came of a scenario under a table in JSON, or under the code's own if it reads tables of another form.

    Raises as its requests do, and `NotMeasuredError` where nothing can be seen.
    """
    machine = Machine(scenario, _table(table), known)
    with TemporaryDirectory() as place:
        with machine.running(Path(place)):
            offers = ENTRY_POINTS[scenario.entry](scenario.requests, Path(place))
        return machine.report(offers)


def _table(text: str) -> TierTable:
    try:
        return msgspec.json.decode(text, type=TierTable)
    except msgspec.MsgspecError:
        return load_tiers()
