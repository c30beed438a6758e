"""Checks that the code of a change still fits where the base's records say so, stage by stage."""

from collections.abc import Iterator, Mapping, Sequence

from acestep.errors import AceStepError, NotMeasuredError
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.limits.workspace import up_to_grain
from acestep.stage import Stage
from acestep.units import gib
from calibrate.probes.base import MeasuredStage, ProbeResult, Simulation
from calibrate.probes.simulated.trace import NO_PARTS
from calibrate.record.adapting import adapts
from calibrate.record.measurement import keeps_promise
from calibrate.verdict import Verdict
from ci.cells import GateCell, finding_of
from ci.counting import TellCells
from ci.findings import Finding
from ci.head_process import simulation_on
from ci.judge_work import work_findings

CODE_ERRORS = (AceStepError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors of the code that is simulated, or of its process; then a cell cannot be probed."""

PLENTY_BYTES = 2**50
"""A cap that is never reached; a run that no longer fits is examined under it."""

_SAME_SIZE = 0.05
"""Share within which a component has the same size as the growth."""


def code_findings(
    cells: Sequence[GateCell], prober: Simulation, share: float, progress: TellCells
) -> Iterator[Finding]:
    """Every cell that fits no more, or takes more than `share` above its record."""
    for cell in cells:
        progress(f"Probing {cell.place}.")
        try:
            yield from _judged(cell, simulation_on(prober, SIMULATED_CAPABILITY, cell.system), share)
        except CODE_ERRORS as error:
            said = f"{error}" if isinstance(error, NotMeasuredError) else f"{type(error).__name__}: {error}"
            yield finding_of("G203", cell, "probe", f"cannot be probed: {said}"[:300])


def found_once(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Leave out what grew since the last release where the same place grew since the base."""
    since_base = {(f.variant, f.tier, f.field) for f in findings if f.id in ("G302", "G303")}
    for finding in findings:
        if finding.id != "G304" or (finding.variant, finding.tier, finding.field) not in since_base:
            yield finding


def _judged(cell: GateCell, prober: Simulation, share: float) -> Iterator[Finding]:
    knobs, workload = cell.probe.knobs, cell.probe.workload
    if not cell.released:
        found = prober.probe(knobs, workload, cell.proven_cap_bytes)
        if not keeps_promise(found, workload.batch):
            yield _no_longer_fits(cell, prober, found)
    if cell.released or cell.proven_cap_bytes != cell.probe.cap_bytes:
        found = prober.probe(knobs, workload, cell.probe.cap_bytes)
    if not keeps_promise(found, workload.batch):
        return
    before = {stage.name: stage for stage in cell.probe.stages}
    then, now = (sorted(stage.name for stage in stages) for stages in (cell.probe.stages, found.stages))
    if then != now:
        told = f"has the stages {', '.join(now)}, and its record {', '.join(then)}: they cannot all be compared"
        yield finding_of("G203", cell, "stages", told, before=" ".join(then), after=" ".join(now))
    for stage in found.stages:
        if stage.name in before:
            alike = _without_more_room(cell, prober, before[stage.name], stage)
            yield from _stage_findings(cell, before[stage.name], alike, found.live_at_peak.get(stage.name, {}), share)
            yield from work_findings(cell, before[stage.name], stage, share)


def _without_more_room(
    cell: GateCell, prober: Simulation, before: MeasuredStage, after: MeasuredStage
) -> MeasuredStage:
    """A denoise that adapts to free memory as it is where the smaller weights have left it no more of that.

    It has no choice that shows, as thinking's songs do, so what it takes then is compared and not excused.
    """
    knobs, workload = cell.probe.knobs, cell.probe.workload
    freed = up_to_grain(before.resident_bytes - after.resident_bytes)
    if after.name != Stage.DENOISE or freed <= 0 or not adapts(after.name, knobs, workload):
        return after
    found = prober.probe(knobs, workload, cell.probe.cap_bytes - freed)
    denoised = found.verdict in (Verdict.FITS, Verdict.DEGRADED)
    return next((stage for stage in found.stages if denoised and stage.name == after.name), after)


def _no_longer_fits(cell: GateCell, prober: Simulation, found: ProbeResult) -> Finding:
    knobs, workload = cell.probe.knobs, cell.probe.workload
    caps = prober.smallest_caps(knobs, workload)
    needed = caps.pop("total")
    stage = max(caps, key=lambda name: caps[name])
    with_room = prober.probe(knobs, workload, PLENTY_BYTES)
    roomy = {probed.name: probed for probed in with_room.stages}
    recorded = {probed.name: probed for probed in cell.probe.stages}
    component = ""
    if stage in roomy and stage in recorded:
        component = component_that_grew(recorded[stage], roomy[stage], with_room.live_at_peak.get(stage, {}))
    # One pass may do less than it did and still find room, or decode elsewhere.
    told = f"needs {gib(needed)}, and was certified at {gib(cell.proven_cap_bytes)}; it now ends {found.verdict}"
    return finding_of(
        "G301",
        cell,
        "smallest_cap_bytes",
        told,
        before=cell.proven_cap_bytes,
        after=needed,
        stage=stage,
        component=component,
    )


def _stage_findings(
    cell: GateCell, before: MeasuredStage, after: MeasuredStage, live: Mapping[str, int], share: float
) -> Iterator[Finding]:
    if after.songs_per_pass < before.songs_per_pass:
        told = f"{after.name} takes {after.songs_per_pass} songs at once, it took {before.songs_per_pass}"
        songs = before.songs_per_pass, after.songs_per_pass
        rule = "G304" if cell.released else "G303"
        yield finding_of(
            rule, cell, f"{after.name}.songs_per_pass", told, before=songs[0], after=songs[1], stage=after.name
        )
    # Thinking or decoding, which adapt to free memory, may take more if the weights next to it take less.
    more_room = after.resident_bytes < before.resident_bytes or after.songs_per_pass > before.songs_per_pass
    adaptive = after.name != Stage.DENOISE and adapts(after.name, cell.probe.knobs, cell.probe.workload)
    taken, takes = before.needed_bytes, after.needed_bytes
    if takes > taken * (1 + share) and not (adaptive and more_room):
        component = component_that_grew(before, after, live)
        told = (
            f"{after.name} takes {gib(takes)}, {takes / max(taken, 1) - 1:+.1%}"
            f"{' since the last release' * cell.released}; what grew is most likely {component}"
        )
        yield finding_of(
            "G304" if cell.released else "G302",
            cell,
            f"{after.name}.peak_allocated_bytes",
            told,
            before=taken,
            after=takes,
            stage=after.name,
            component=component,
        )


def component_that_grew(before: MeasuredStage, after: MeasuredStage, live: Mapping[str, int]) -> str:
    """The owner of the memory that a stage takes more, judged by what a record keeps: weights, workspaces and the rest.

    `live` is what was alive at the peak of `after`. Among weights it is the component of just that size, else the
    largest; empty where nothing grew.
    """
    weights = after.resident_bytes - before.resident_bytes
    workspaces = after.allowance_bytes - before.allowance_bytes
    rest = after.peak_allocated_bytes - before.peak_allocated_bytes - weights
    if max(weights, workspaces, rest) <= 0:
        return ""
    if workspaces >= max(weights, rest):
        return "workspace"
    owners = {name: n for name, n in live.items() if (name not in NO_PARTS) == (weights >= rest)}
    if weights < rest:
        return max(owners, key=lambda name: owners[name], default="activations")
    alike = [name for name, n in owners.items() if abs(n - weights) <= _SAME_SIZE * weights]
    return alike[0] if alike else max(owners, key=lambda name: owners[name], default="weights")
