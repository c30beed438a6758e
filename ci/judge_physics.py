"""Checks that the new records of a change say what its own code does in the simulation."""

from collections.abc import Iterator

from acestep.hardware.card import SIMULATED_CAPABILITY
from calibrate.campaign.physics import physics
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement, RecordedCardKind
from ci.findings import Finding
from ci.head_process import simulation_on
from ci.judge_code import TellCells


def physics_findings(record: Measurement, simulation: Simulation, progress: TellCells) -> Iterator[Finding]:
    """Yield where a new record contradicts the simulation of a card of its compute capability.

    Of the simulated card every probe is simulated again, and must be equal.
    """
    simulated = record.card.kind is RecordedCardKind.SIMULATED
    capability = SIMULATED_CAPABILITY if simulated else record.card.capability
    for broken in physics(record, simulation_on(simulation, capability, record.card.system), progress):
        message = f"the record of {record.card.name}, rule {broken.rule.id}: {broken.field} {broken.problem}."
        yield Finding(id="G108", field=broken.field, message=message)
