"""Checks that what a stage takes does not grow with the number of steps: probes run two, a song eight or more."""

from collections.abc import Iterator, Sequence

import msgspec

from acestep.budgets import System
from acestep.knobs import Variant
from acestep.units import mib
from calibrate.probes.base import Simulation
from calibrate.workload import PROBE_STEPS
from ci.cells import GateCell
from ci.counting import TellCells
from ci.findings import Finding
from ci.judge_code import CODE_ERRORS

STEPS = (PROBE_STEPS + 1, 8, 20)
"""One more than a probe runs, all of a song of turbo, and more than it was trained for."""

STEPS_GUIDED = (20,)
"""Steps of a guided variant, each of which takes twice as long."""


def step_findings(cells: Sequence[GateCell], simulation: Simulation, progress: TellCells) -> Iterator[Finding]:
    """Yield the stages of the largest of some cells that take more with more steps, in the simulation not one byte.

    There is one cell of the variants that are guided, and one of the others.
    """
    here = [cell for cell in cells if cell.system is System.LINUX]
    for guided, steps in ((False, STEPS), (True, STEPS_GUIDED)):
        alike = [cell for cell in here if cell.probe.knobs.variant.is_turbo is not guided]
        if alike:
            # In short songs the weights take the most, before the first step.
            yield from _grown(max(alike, key=_worth), steps, simulation, progress)


def _grown(cell: GateCell, steps: Sequence[int], simulation: Simulation, progress: TellCells) -> Iterator[Finding]:
    knobs, workload, cap_bytes = cell.probe.question
    progress(f"Probing {cell.variant} {cell.tier} with {', '.join(map(str, steps))} steps.")
    try:
        few, *more = [
            simulation.probe(knobs, msgspec.structs.replace(workload, steps=number), 2 * cap_bytes)
            for number in (PROBE_STEPS, *steps)
        ]
    except CODE_ERRORS as error:
        yield Finding(id="G203", variant=cell.variant, tier=cell.tier, message=f"steps cannot be probed: {error}")
        return
    taken = {stage.name: stage.needed_bytes for stage in few.stages}
    for number, result in zip(steps, more, strict=True):
        for stage in result.stages:
            before, after = taken.get(stage.name, 0), stage.needed_bytes
            if after > before:
                told = f"{mib(before)} with {PROBE_STEPS} steps and {mib(after)} with {number}"
                yield Finding(
                    id="G306",
                    variant=cell.variant,
                    tier=cell.tier,
                    field=f"{stage.name}.steps",
                    before=before,
                    after=after,
                    stage=stage.name,
                    message=f"{stage.name} takes {told}.",
                )


def _worth(cell: GateCell) -> tuple[bool, bool, float, int]:
    knobs, work = cell.probe.knobs, cell.probe.workload
    usual = knobs.variant in (Variant.TURBO, Variant.BASE)
    return usual, knobs.lm is None, work.batch * work.duration_s, -cell.probe.cap_bytes
