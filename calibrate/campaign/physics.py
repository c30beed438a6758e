"""Compares a record with the simulated card: no run takes less memory than the same code takes in the simulation.

The simulation equals real allocators to the byte, so a file that a contributor sends is compared with it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET

from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.knobs import Knobs
from acestep.stage import Stage
from acestep.units import mib
from calibrate.campaign.probers import simulation_of
from calibrate.campaign.run import describe_probe
from calibrate.fingerprint import LIBRARIES, code_version, library_versions
from calibrate.probes.base import MeasuredStage, Simulation
from calibrate.record.adapting import adapts
from calibrate.record.contributed import BrokenRule, as_finding, safe_text, validate
from calibrate.record.measurement import (
    Coefficient,
    Measurement,
    RecordedCardKind,
    RecordedProbe,
    load_measurement,
    recorded_stages,
)
from calibrate.record.rules import Broken, RuleLevel, declared, numbered_probes
from calibrate.table.knobs import eager
from calibrate.verdict import Verdict
from calibrate.workload import PROBE_STEPS, Workload

LEAST: Final = -0.01
MOST: Final = 0.05
"""How far below and above the simulation a stage may be: a real card's libraries round their workspaces otherwise."""

_ALLOCATED = declared(
    "V201",
    "a stage allocates at most 5 % more than in the simulation, and at most 1 % less; think and decode, which adapt to"
    " free memory, only have to allocate their weights, and passes of a denoise that does so may go together",
)
_RESIDENT = declared("V202", "the resident bytes of a stage are the weights that it keeps on the card")
_FITS = declared("V203", "a run that fits also fits in the simulation, under a cap that is at most 5 % larger")
_SIMULATED = declared("V204", "a run that ended can be simulated")
_EXACT = declared("V205", "a probe of a simulated card has the verdict, the stages and the bytes of the simulation")

_REFITTED = declared("V206", "the coefficients of the guard are those that today's code fits in the simulation")

_SAME_FIT: Final = 1e-6
_CLOSE_FIT: Final = 0.01
"""Shares by which a coefficient may differ from the fit of an exact simulation, and of another one."""

_JITTER: Final = 0.001
"""Share by which resident bytes may differ: the allocator's rounding of small weights."""

_PLENTY_BYTES: Final = 2**50
"""A cap that is never reached."""

_Tell = Callable[[str], None]


def findings_of(path: Path, progress: _Tell) -> list[BrokenRule]:
    """Return everything that is wrong with a contributed file, also against the simulation of today's code.

    A record of the simulated card with other code is not compared: a change that takes less memory brings one, and the
    base's code must not refuse it. The gate compares it with the change's own.
    """
    found = validate(path)
    if any(finding.level is RuleLevel.ERROR for finding in found):
        return found
    record = load_measurement(path)
    if record.card.kind is RecordedCardKind.SIMULATED and not _simulated_by_this(record):
        progress(
            f"{safe_text(str(path))} is of the simulated card with other code or libraries than those here, so it is"
            " not compared with the simulation; `python -m ci.gate` compares it with that of its own change."
        )
        return found
    return [*found, *(as_finding(path, broken) for broken in _impossible(record, progress))]


def require_possible(path: Path, record: Measurement, progress: _Tell) -> None:
    """Raise `InvalidInputError` if a file's record contradicts the simulation, or the guard's coefficients its fit."""
    for broken in _impossible(record, progress):
        raise InvalidInputError(
            path, f"{broken.field} {broken.problem}; the rule {broken.rule.id}: {broken.rule.promise}"
        )


def _impossible(record: Measurement, progress: _Tell) -> Iterator[Broken]:
    # Other code and libraries may have taken other bytes in the simulation too; a promise has to hold all the same.
    exact = record.card.kind is RecordedCardKind.SIMULATED and _simulated_by_this(record)
    yield from physics(record, simulation_of(record.card, record.environment.torch), progress, exact=exact)


def _simulated_by_this(record: Measurement) -> bool:
    """Whether a record is of the code and of the versions of the libraries that are here."""
    # The version of Python allocates nothing on a card.
    libraries = library_versions()
    alike = all(getattr(record.environment, name) == libraries[name] for name in LIBRARIES)
    return alike and record.code_version == code_version()


def physics(
    record: Measurement,
    simulation: Simulation,
    progress: _Tell,
    fitted: Collection[Coefficient] = (),
    *,
    exact: bool,
) -> Iterator[Broken]:
    """Yield where a record contradicts the simulation; `progress` gets a sentence about every run that is compared.

    Coefficients of the guard that are among the `fitted` ones were compared before. The simulation runs today's code.
    Where it is `exact`, every probe must be equal to it, as those of a simulated card with the same code are. Otherwise
    the runs that ended are compared, within a tolerance.
    """
    compared = [
        (place, probe)
        for place, probe in numbered_probes(record)
        if exact or probe.verdict in (Verdict.FITS, Verdict.DEGRADED)
    ]
    compare = _unequal if exact else _contradictions
    # Runs of the same knobs share a trace, and the simulation keeps the latest ones.
    for number, (place, probe) in enumerate(compared, 1):
        progress(f"{number} of {len(compared)}: {describe_probe(probe.knobs, probe.workload, probe.cap_bytes)}")
        try:
            yield from compare(place, probe, simulation)
        except NotMeasuredError as error:
            yield Broken(rule=_SIMULATED, field=place, problem=f"cannot be simulated: {error}")
    if not set(record.memory_model) <= set(fitted):
        yield from refitted(record, simulation, progress, exact=exact)


def refitted(record: Measurement, simulation: Simulation, progress: _Tell, *, exact: bool) -> Iterator[Broken]:
    """Yield the first coefficient of each variant that the simulation of today's code does not fit.

    Where the simulation is `exact` it fits the same numbers, but for their rounding.
    """
    tolerated = _SAME_FIT if exact else _CLOSE_FIT
    for variant in dict.fromkeys(number.variant for number in record.memory_model):
        progress(f"fits the guard's coefficients of {variant} again")
        told = {number.name: number.value for number in record.memory_model if number.variant is variant}
        found = simulation.memory_model(variant)
        for name in sorted({*told, *found}):
            if name not in told or name not in found:
                problem = f"lacks {name} of {variant}" if name in found else f"has {name} of {variant}, which is none"
            elif abs(told[name] - found[name]) > tolerated * abs(found[name]):
                problem = f"has {told[name]:,.0f} for {name} of {variant}; the fit gives {found[name]:,.0f}"
            else:
                continue
            yield Broken(rule=_REFITTED, field="memory_model", problem=problem)
            break


def _asked(probe: RecordedProbe) -> tuple[Knobs, Workload]:
    """A recorded run as the simulation is asked for it; more steps than those of a probe take no more memory."""
    workload = msgspec.structs.replace(probe.workload, steps=min(probe.workload.steps, PROBE_STEPS))
    return eager(probe.knobs), workload


def _unequal(place: str, probe: RecordedProbe, simulation: Simulation) -> Iterator[Broken]:
    """Yield the first field of a simulated probe that is not the simulation's."""
    found = simulation.probe(*_asked(probe), probe.cap_bytes)
    pairs: list[tuple[str, object, object]] = [
        (name, getattr(probe, name), getattr(found, name))
        for name in ("verdict", "songs_per_pass", "decode_path", "withheld_bytes")
    ]
    stages = recorded_stages(found, timed=False)
    pairs.append(("stages", _names(probe.stages), _names(stages)))
    for number, (told, simulated) in enumerate(zip(probe.stages, stages, strict=False)):
        alike = _with_sums_of(told, simulated)
        for name in told.__struct_fields__:
            pairs.append((f"stages[{number}].{name}", getattr(told, name), getattr(alike, name)))
    for field, told_value, simulated_value in pairs:
        if told_value != simulated_value:
            problem = f"is {told_value}; the simulation of today's code has {simulated_value}"
            yield Broken(rule=_EXACT, field=f"{place}.{field}", problem=problem)
            return


def _with_sums_of(told: MeasuredStage, simulated: MeasuredStage) -> MeasuredStage:
    """The simulated stage without the waits where the record is of a release that did not count them."""
    work = simulated.work
    if told.work is UNSET or work is UNSET or told.work.waits is not UNSET:
        return simulated
    return msgspec.structs.replace(simulated, work=msgspec.structs.replace(work, waits=UNSET))


def _names(stages: Sequence[MeasuredStage]) -> str:
    return " ".join(stage.name for stage in stages) or "empty"


def _contradictions(place: str, probe: RecordedProbe, simulation: Simulation) -> Iterator[Broken]:
    cap_bytes = max(probe.allocator_bytes, 1)
    found = simulation.probe(*_asked(probe), cap_bytes)
    if probe.verdict is Verdict.FITS and found.verdict is not Verdict.FITS:
        needed = simulation.smallest_caps(*_asked(probe))["total"]
        if needed > cap_bytes * (1 + MOST):
            problem = f"fits under {mib(cap_bytes)}; the simulation needs {mib(needed)}"
            yield Broken(rule=_FITS, field=f"{place}.cap_bytes", problem=problem)
        found = simulation.probe(*_asked(probe), max(needed, cap_bytes))
    simulated = {stage.name: stage for stage in found.stages}
    for number, stage in enumerate(probe.stages):
        at = f"{place}.stages[{number}]"
        if stage.name not in simulated or (probe.verdict is Verdict.DEGRADED and number == len(probe.stages) - 1):
            continue
        expected = simulated[stage.name]
        least, most = _bounds(probe, stage, expected.peak_allocated_bytes, simulation)
        yield from _compared(at, stage, expected, least, most)


def _bounds(probe: RecordedProbe, stage: MeasuredStage, expected: int, simulation: Simulation) -> tuple[int, int]:
    """The least and the most that a stage allocates in the simulation, which has the `expected` bytes under its cap.

    A card near the cap at which a stage does more at a time may do less than the simulation, or more: their contexts
    and the places of their free bytes differ. The least is 0 where it is not known.
    """
    if not adapts(stage.name, probe.knobs, probe.workload):
        return expected, expected
    if stage.name != Stage.DENOISE:
        return 0, expected
    if stage.peak_allocated_bytes < expected * (1 + LEAST):
        # Under the smallest cap passes go apart, unless an earlier stage needs more than they do together: then no run
        # that reaches them lacks the room. A run may need a little more than each of its stages.
        caps = simulation.smallest_caps(*_asked(probe))
        until = max(n_bytes for name, n_bytes in caps.items() if name not in (Stage.DECODE, "total"))
        apart = [_denoised(probe, simulation, cap) for cap in (until, caps["total"])]
        return min((n_bytes for n_bytes in apart if n_bytes), default=0), expected
    if stage.peak_allocated_bytes > expected * (1 + MOST):
        return expected, max(expected, _denoised(probe, simulation, _PLENTY_BYTES))
    return expected, expected


def _denoised(probe: RecordedProbe, simulation: Simulation, cap_bytes: int) -> int:
    """The bytes that denoising allocates in the simulation under another cap; 0 if the run ends before or in it."""
    found = simulation.probe(*_asked(probe), cap_bytes)
    ended = found.verdict in (Verdict.FITS, Verdict.DEGRADED)
    return next((s.peak_allocated_bytes for s in found.stages if ended and s.name == Stage.DENOISE), 0)


def _compared(at: str, stage: MeasuredStage, simulated: MeasuredStage, least: int, most: int) -> Iterator[Broken]:
    """Compare a stage, which allocates `least` to `most` bytes in the simulation."""
    taken = stage.peak_allocated_bytes
    low = max(int(least * (1 + LEAST)), stage.resident_bytes) if least else simulated.resident_bytes
    if not low <= taken <= most * (1 + MOST):
        has = mib(most) if least in (0, most) else f"{mib(least)} to {mib(most)}"
        problem = f"is {mib(taken)} in {stage.name}; the simulation of today's code has {has}"
        yield Broken(rule=_ALLOCATED, field=f"{at}.peak_allocated_bytes", problem=problem)
    weights = simulated.resident_bytes
    if abs(stage.resident_bytes - weights) > weights * _JITTER:
        problem = f"is {mib(stage.resident_bytes)} in {stage.name}; the weights there are {mib(weights)}"
        yield Broken(rule=_RESIDENT, field=f"{at}.resident_bytes", problem=problem)
