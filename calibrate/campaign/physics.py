"""Compares a record with the simulated card: no run takes less memory than the same code takes in the simulation.

The simulation equals real allocators to the byte, so it is the yardstick for a file that a stranger sends.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.units import mib
from calibrate.campaign.probers import simulation_of
from calibrate.campaign.run import describe_probe
from calibrate.probes.base import MeasuredStage, Simulation
from calibrate.record.contributed import BrokenRule, as_finding, validate
from calibrate.record.measurement import Measurement, RecordedCardKind, RecordedProbe, load_measurement
from calibrate.record.rules import CHOOSING, Broken, RuleLevel, declared, numbered_probes
from calibrate.table.knobs import eager
from calibrate.verdict import Verdict
from calibrate.workload import PROBE_STEPS

LEAST: Final = -0.01
MOST: Final = 0.05
"""How far below and above the simulation a stage may be: a real card's libraries round their workspaces otherwise."""

_ALLOCATED = declared("V201", "a stage allocates -1 % to +5 % of what it does in the simulation")
_RESIDENT = declared("V202", "the resident bytes of a stage are the weights that it keeps on the card")
_FITS = declared("V203", "a run that fits also fits in the simulation, under a cap that is at most 5 % larger")
_SIMULATED = declared("V204", "a run that fits can be simulated")

_JITTER: Final = 0.001
"""Share by which resident bytes may differ: the allocator's rounding of small weights."""

_Tell = Callable[[str], None]


def findings_of(path: Path, progress: _Tell) -> list[BrokenRule]:
    """Return everything that is wrong with a contributed file, of a real or virtual card also against the simulation.

    The gate simulates new records of a simulated card with the code that they come with.
    """
    found = validate(path)
    if any(finding.level is RuleLevel.ERROR for finding in found):
        return found
    return [*found, *(as_finding(path, broken) for broken in _impossible(load_measurement(path), progress))]


def require_possible(path: Path, record: Measurement, progress: _Tell) -> None:
    """Raise `InvalidInputError` if a file's record contradicts the simulation."""
    for broken in _impossible(record, progress):
        raise InvalidInputError(
            path, f"{broken.field} {broken.problem}; the rule {broken.rule.id}: {broken.rule.promise}"
        )


def _impossible(record: Measurement, progress: _Tell) -> Iterator[Broken]:
    if record.card.kind is not RecordedCardKind.SIMULATED:
        yield from physics(record, simulation_of(record.card), progress)


def physics(
    record: Measurement, simulation: Simulation, progress: _Tell, chosen: Collection[int] | None = None
) -> Iterator[Broken]:
    """Yield where a record contradicts the simulation; `progress` gets a sentence about every run that ended.

    The simulation runs today's code, with the attention kernels of the record's card. `chosen` are the numbers of the
    probes to compare; all of them without it.
    """
    ended = [
        (place, probe)
        for number, (place, probe) in enumerate(numbered_probes(record))
        if probe.verdict in (Verdict.FITS, Verdict.DEGRADED) and (chosen is None or number in chosen)
    ]
    # Runs of the same knobs share a trace, and the simulation keeps the latest ones.
    for number, (place, probe) in enumerate(ended, 1):
        progress(f"{number} of {len(ended)}: {describe_probe(probe.knobs, probe.workload, probe.cap_bytes)}")
        try:
            yield from _contradictions(record, place, probe, simulation)
        except NotMeasuredError as error:
            yield Broken(rule=_SIMULATED, field=place, problem=f"cannot be simulated: {error}")


def _contradictions(record: Measurement, place: str, probe: RecordedProbe, simulation: Simulation) -> Iterator[Broken]:
    knobs = eager(probe.knobs)
    workload = msgspec.structs.replace(probe.workload, steps=min(probe.workload.steps, PROBE_STEPS))
    cap_bytes = max(probe.allocator_bytes, 1)
    found = simulation.probe(knobs, workload, cap_bytes)
    if probe.verdict is Verdict.FITS and found.verdict is not Verdict.FITS:
        needed = simulation.smallest_caps(knobs, workload)["total"]
        if needed * (1 - MOST) > cap_bytes:
            problem = f"fits under {mib(cap_bytes)}; the simulation needs {mib(needed)}"
            yield Broken(rule=_FITS, field=f"{place}.cap_bytes", problem=problem)
        found = simulation.probe(knobs, workload, max(needed, cap_bytes))
    simulated = {stage.name: stage for stage in found.stages}
    exact = record.card.kind is RecordedCardKind.SIMULATED
    for number, stage in enumerate(probe.stages):
        at = f"{place}.stages[{number}]"
        if stage.name not in simulated or (probe.verdict is Verdict.DEGRADED and number == len(probe.stages) - 1):
            continue
        yield from _compared(at, stage, simulated[stage.name], chosen=stage.name in CHOOSING and not exact)


def _compared(at: str, stage: MeasuredStage, simulated: MeasuredStage, *, chosen: bool) -> Iterator[Broken]:
    """Compare a stage; one that chose its tiles or songs on a real card may have taken more or less of them."""
    taken, expected = stage.peak_allocated_bytes, simulated.peak_allocated_bytes
    low = max(int(expected * (1 + LEAST)), stage.resident_bytes) if not chosen else simulated.resident_bytes
    if not low <= taken <= expected * (1 + MOST):
        problem = f"is {mib(taken)} in {stage.name}; the simulation of today's code has {mib(expected)}"
        yield Broken(rule=_ALLOCATED, field=f"{at}.peak_allocated_bytes", problem=problem)
    weights = simulated.resident_bytes
    if abs(stage.resident_bytes - weights) > weights * _JITTER:
        problem = f"is {mib(stage.resident_bytes)} in {stage.name}; the weights there are {mib(weights)}"
        yield Broken(rule=_RESIDENT, field=f"{at}.resident_bytes", problem=problem)
