"""Probes certified cells with the code of a change in two processes; cells that share a trace go to the same one."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Empty, SimpleQueue

from calibrate.probes.base import Simulation
from ci.cells import GateCell
from ci.counting import TellCells
from ci.findings import Finding
from ci.head_process import HeadGoneError, HeadSimulation, head_code
from ci.judge_code import code_findings

GATE_WORKER = (sys.executable, "-P", "-m", "ci.head_process")

WORKERS = 2
"""Number of processes: the cores of the gate's machines."""


SimulationTask = Callable[[Simulation], Iterable[Finding]]
"""What is asked of a simulation, and what it shows."""


def cell_tasks(cells: Sequence[GateCell], share: float, progress: TellCells) -> list[SimulationTask]:
    """Return a task for each group of cells that share traces, the largest first."""
    groups: dict[object, list[GateCell]] = {}
    for cell in cells:
        knobs = cell.probe.knobs
        groups.setdefault((cell.system, knobs.variant, knobs.offload, knobs.quantization), []).append(cell)
    largest_first = sorted(groups.values(), key=len, reverse=True)
    return [lambda by, group=group: code_findings(group, by, share, progress) for group in largest_first]  # type: ignore[misc]


def simulated_findings(
    tasks: Sequence[SimulationTask], tree: Path, seed: int = 0, command: Sequence[str] = GATE_WORKER
) -> Iterator[Finding]:
    """Yield the findings of tasks, in an order that does not depend on which process finishes first.

    The code is that of a `tree`; `seed` draws the calls that are computed although they look like earlier ones.
    """
    waiting: SimpleQueue[tuple[int, SimulationTask]] = SimpleQueue()
    for numbered in enumerate(tasks):
        waiting.put(numbered)
    found: dict[int, list[Finding]] = {}

    def work(simulation: HeadSimulation) -> None:
        while True:
            try:
                number, task = waiting.get_nowait()
            except Empty:
                return
            found[number] = list(task(simulation))

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor())
        search = stack.enter_context(head_code(tree))
        # Closing the processes comes first where this is left, so that no thread waits for an answer.
        started = [
            stack.enter_context(closing(HeadSimulation([*command, str(seed)], search)))
            for _ in range(min(WORKERS, len(tasks)))
        ]
        for done in [pool.submit(work, simulation) for simulation in started]:
            try:
                done.result()
            except HeadGoneError as error:
                message = f"not every certified cell could be probed: {error}. Was memory short?"
                found[len(tasks)] = [Finding(id="G203", message=message)]
    for _, findings in sorted(found.items()):
        yield from findings
