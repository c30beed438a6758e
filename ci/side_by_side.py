"""Probes certified cells on the simulated card in two processes; cells that share a trace go to the same one.

python -m ci.side_by_side FD
"""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from multiprocessing.connection import wait

from acestep.cli import console
from acestep.errors import NotMeasuredError
from calibrate.campaign.probers import prober_for
from calibrate.executors.process import Process
from calibrate.executors.worker import answer_all
from ci.cells import GateCell
from ci.findings import Finding, Level
from ci.judge_code import TellCells, code_findings

GATE_WORKER = (sys.executable, "-m", "ci.side_by_side")

WORKERS = 2
"""Number of processes: the cores of the gate's machines."""

Group = tuple[list[GateCell], float]
"""Cells that share a trace, and the tolerance for them."""

_Hand = Process[Group, list[Finding]]


def simulated_findings(
    cells: Sequence[GateCell], share: float, progress: TellCells, command: Sequence[str] = GATE_WORKER
) -> Iterator[Finding]:
    """Yield the cells' findings, in an order that does not depend on which process finishes first."""
    groups: dict[object, list[GateCell]] = {}
    for cell in cells:
        knobs = cell.probe.knobs
        groups.setdefault((knobs.variant, knobs.offload, knobs.quantization), []).append(cell)
    if len(groups) == 1:
        yield from code_findings(cells, prober_for("simulated"), share, progress)
        return
    largest_first = sorted(groups.values(), key=len, reverse=True)
    found: dict[int, list[Finding]] = {}
    with closing(_as_they_come([(group, share) for group in largest_first], command)) as answers:
        try:
            for number, findings in answers:
                found[number] = findings
        except NotMeasuredError as error:
            message = f"not every certified cell could be probed: {error}. Was memory short?"
            found[len(groups)] = [Finding(id="G203", level=Level.ERROR, message=message)]
    for _, findings in sorted(found.items()):
        yield from findings


def _as_they_come(groups: Sequence[Group], command: Sequence[str]) -> Generator[tuple[int, list[Finding]], None, None]:
    """Yield the number of each group and its findings.

    When the generator is closed, running processes end and no more start.
    """
    waiting = list(enumerate(groups))[::-1]
    with ExitStack() as started:
        idle: list[_Hand] = [started.enter_context(closing(Process(command))) for _ in range(min(WORKERS, len(groups)))]
        at_work: dict[object, tuple[int, _Hand]] = {}
        while waiting or at_work:
            while waiting and idle:
                hand = idle.pop()
                number, group = waiting.pop()
                hand.ask(group)
                at_work[hand.channel] = number, hand
            for channel in wait([hand.channel for _, hand in at_work.values()]):
                number, hand = at_work.pop(channel)
                yield number, hand.answer()
                idle.append(hand)


def _simulated() -> Callable[[Group], list[Finding]]:
    """One prober for each process: it keeps its traces from one group of cells to the next."""
    prober = prober_for("simulated")
    return lambda group: list(code_findings(group[0], prober, group[1], console.notify))


if __name__ == "__main__":
    answer_all(int(sys.argv[1]), _simulated)
