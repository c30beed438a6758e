"""Checks that the new records of a change say what its own code does in the simulation."""

from collections.abc import Iterator, Sequence

from acestep.hardware.card import SIMULATED_CAPABILITY
from calibrate.campaign.physics import physics
from calibrate.probes.base import Simulation
from calibrate.record.measurement import Measurement, RecordedCardKind
from ci.counting import TellCells
from ci.findings import Finding
from ci.head_process import simulation_on


def physics_findings(
    record: Measurement, base: Sequence[Measurement], simulation: Simulation, progress: TellCells
) -> Iterator[Finding]:
    """Yield where a new record contradicts the simulation of a card of its compute capability.

    Of the simulated card every probe is simulated again, and must be equal. The guard's coefficients are fitted again,
    which takes a minute for each variant, unless a record of the `base` has the same.
    """
    simulated = record.card.kind is RecordedCardKind.SIMULATED
    capability = SIMULATED_CAPABILITY if simulated else record.card.capability
    simulation = simulation_on(simulation, capability, record.card.system)
    fitted = [number for one in base for number in one.memory_model]
    for broken in physics(record, simulation, progress, fitted, exact=simulated):
        message = f"the record of {record.card.name}, rule {broken.rule.id}: {broken.field} {broken.problem}."
        yield Finding(id="G108", field=broken.field, message=message)
