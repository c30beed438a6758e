"""Checks that the new records of a change say what its own code does in the simulation."""

from collections.abc import Iterator, Sequence
from random import Random

from calibrate.campaign.physics import physics
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement, RecordedCardKind
from ci.cells import GateCell
from ci.findings import Finding
from ci.head_process import HeadSimulation
from ci.judge_code import TellCells

SAMPLE = 6
"""Probes of a new simulated record that are simulated again besides those of the certified cells."""


def physics_findings(
    record: Measurement, cells: Sequence[GateCell], simulation: Simulation, progress: TellCells, seed: int
) -> Iterator[Finding]:
    """Yield where a new record contradicts the simulation.

    Of a real or virtual card all probes are compared. Of the simulated card, which has thousands, the certified `cells`
    are, and a sample that `seed` draws.
    """
    chosen = None
    if record.card.kind is RecordedCardKind.SIMULATED:
        certified = {cell.probe.question for cell in cells}
        numbers = range(len(record.probes))
        sample = Random(seed).sample(numbers, min(SAMPLE, len(numbers)))  # noqa: S311 it draws a sample, not a secret
        chosen = {*sample, *(n for n in numbers if record.probes[n].question in certified)}
    elif isinstance(simulation, HeadSimulation):
        simulation = simulation.of(record.card.capability)
    for broken in physics(record, simulation, progress, chosen):
        message = f"the record of {record.card.name}, rule {broken.rule.id}: {broken.field} {broken.problem}."
        yield Finding(id="G108", field=broken.field, message=message)
