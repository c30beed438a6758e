"""Certified cells probed on the simulated card by two processes, those that share a trace by the same one."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context

from acestep import console
from calibrate.probers import prober_for
from calibrate.probes.base import Prober
from ci.cells import Cell
from ci.findings import Finding, Level
from ci.judge_code import Progress, code_findings

WORKERS = 2
"""Processes at once: the cores that the machines of a gate have."""


def simulated_findings(cells: Sequence[Cell], share: float, progress: Progress) -> Iterator[Finding]:
    """What the cells show, in an order that does not depend on which process is done first."""
    groups: dict[object, list[Cell]] = {}
    for cell in cells:
        knobs = cell.probe.knobs
        groups.setdefault((knobs.variant, knobs.offload, knobs.quantization), []).append(cell)
    if len(groups) == 1:
        yield from code_findings(cells, prober_for("simulated"), share, progress)
        return
    largest_first = sorted(groups.values(), key=len, reverse=True)
    try:
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
            for found in pool.map(_of_group, largest_first, [share] * len(largest_first)):
                yield from found
    except BrokenProcessPool:
        message = "a process that probed ended without an answer; was memory short? Run the gate again."
        yield Finding(id="G203", level=Level.ERROR, message=message)


def _of_group(cells: list[Cell], share: float) -> list[Finding]:
    return list(code_findings(cells, _prober(), share, console.notify))


@cache
def _prober() -> Prober:
    """One a process: what it learnt of one group of cells it need not trace again for the next."""
    return prober_for("simulated")
