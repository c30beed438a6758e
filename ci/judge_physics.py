"""Checks that the new records of a change say what its own code does in the simulation."""

from collections.abc import Iterator

from calibrate.campaign.physics import physics
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement, RecordedCardKind
from ci.findings import Finding
from ci.head_process import HeadSimulation
from ci.judge_code import TellCells


def physics_findings(record: Measurement, simulation: Simulation, progress: TellCells) -> Iterator[Finding]:
    """Yield where a new record contradicts the simulation of a card of its compute capability.

    Of the simulated card every probe is simulated again, and must be equal.
    """
    if record.card.kind is not RecordedCardKind.SIMULATED and isinstance(simulation, HeadSimulation):
        simulation = simulation.of(record.card.capability)
    for broken in physics(record, simulation, progress):
        message = f"the record of {record.card.name}, rule {broken.rule.id}: {broken.field} {broken.problem}."
        yield Finding(id="G108", field=broken.field, message=message)
