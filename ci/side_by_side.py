"""Probes certified cells on the simulated card in two processes; cells that share a trace go to the same one.

python -m ci.side_by_side SEED FD
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from random import Random

from acestep.cli import console
from acestep.errors import NotMeasuredError
from calibrate.campaign.probers import simulation
from calibrate.executors.pool import ProcessPool
from calibrate.executors.worker import answer_all
from calibrate.probes.base import Simulation
from ci.cells import GateCell
from ci.findings import Finding
from ci.judge_code import TellCells, code_findings

GATE_WORKER = (sys.executable, "-m", "ci.side_by_side")

WORKERS = 2
"""Number of processes: the cores of the gate's machines."""

Group = tuple[list[GateCell], float]
"""Cells that share a trace, and the tolerance for them."""


def simulated_findings(
    cells: Sequence[GateCell], share: float, progress: TellCells, seed: int = 0, command: Sequence[str] = GATE_WORKER
) -> Iterator[Finding]:
    """Yield the cells' findings, in an order that does not depend on which process finishes first.

    `seed` draws the calls that are computed although they look like earlier ones.
    """
    groups: dict[object, list[GateCell]] = {}
    for cell in cells:
        knobs = cell.probe.knobs
        groups.setdefault((knobs.variant, knobs.offload, knobs.quantization), []).append(cell)
    if len(groups) == 1:
        yield from code_findings(cells, _sampling(seed), share, progress)
        return
    largest_first = sorted(groups.values(), key=len, reverse=True)
    found: dict[int, list[Finding]] = {}
    pool: ProcessPool[Group, list[Finding]] = ProcessPool(min(WORKERS, len(groups)), [*command, str(seed)])
    with closing(pool):
        try:
            found.update(pool.answers([(group, share) for group in largest_first]))
        except NotMeasuredError as error:
            message = f"not every certified cell could be probed: {error}. Was memory short?"
            found[len(groups)] = [Finding(id="G203", message=message)]
    for _, findings in sorted(found.items()):
        yield from findings


def _sampling(seed: int) -> Simulation:
    return simulation(sample=Random(seed))  # noqa: S311 it draws a sample, not a secret


def _simulated(seed: int) -> Callable[[Group], list[Finding]]:
    """One prober a process: what it learnt of one group of cells it need not trace again for the next."""
    prober = _sampling(seed)
    return lambda group: list(code_findings(group[0], prober, group[1], console.notify))


if __name__ == "__main__":
    answer_all(int(sys.argv[2]), partial(_simulated, int(sys.argv[1])))
