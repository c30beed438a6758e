"""Probes certified cells with the code of a change in several processes, here or on other machines."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from calibrate.executors.fleet import MOST_LOSSES
from calibrate.probes.base import Simulation
from ci.cells import GateCell
from ci.counting import TellCells
from ci.findings import Finding
from ci.head_channel import SHOW_FAULTS, HeadGoneError, HeadLostError, HeadPlaces, LocalPlaces
from ci.head_process import HeadSimulation, head_code
from ci.judge_code import code_findings

GATE_WORKER = (sys.executable, "-P", *SHOW_FAULTS, "-m", "ci.head_process")

LOCAL_PLACES: Final = LocalPlaces()
"""Where the code of a change is simulated unless other machines are named."""


SimulationTask = Callable[[Simulation], Iterable[Finding]]
"""What is asked of a simulation, and what it shows."""


def cell_tasks(
    cells: Sequence[GateCell], share: float, progress: TellCells, *, apart: bool = False
) -> list[SimulationTask]:
    """Return a task for each group of cells that share traces, the largest first; `apart` for each cell.

    The cells of the base and of the last release at one place stay together.
    """
    groups: dict[object, list[GateCell]] = {}
    for cell in cells:
        knobs = cell.probe.knobs
        group = (cell.system, knobs.variant, knobs.offload, knobs.quantization)
        groups.setdefault((*group, cell.tier, cell.state) if apart else group, []).append(cell)
    largest_first = sorted(groups.values(), key=len, reverse=True)
    return [lambda by, group=group: code_findings(group, by, share, progress) for group in largest_first]  # type: ignore[misc]


def simulated_findings(
    tasks: Sequence[SimulationTask],
    tree: Path,
    seed: int = 0,
    command: Sequence[str] = GATE_WORKER,
    places: HeadPlaces = LOCAL_PLACES,
) -> Iterator[Finding]:
    """Yield the findings of tasks, in an order that does not depend on which process finishes first.

    The code is that of a `tree`; `seed` draws the calls that are computed although they look like earlier ones.
    """
    waiting: SimpleQueue[tuple[int, SimulationTask]] = SimpleQueue()
    for numbered in enumerate(tasks):
        waiting.put(numbered)
    found: dict[int, list[Finding]] = {}
    losses: Counter[int] = Counter()

    def work(simulation: HeadSimulation) -> None:
        while True:
            try:
                number, task = waiting.get_nowait()
            except Empty:
                return
            try:
                found[number] = list(task(simulation))
            except HeadLostError as error:
                losses[number] += 1
                if losses[number] >= MOST_LOSSES:
                    raise HeadGoneError(f"a machine was lost {MOST_LOSSES} times, the last time: {error}") from None
                waiting.put((number, task))
                return

    with head_code(tree) as search:
        # Tasks that were lost with a machine are left for the next round.
        while waiting.qsize() and len(tasks) not in found:
            try:
                _work_side_by_side(work, [*command, str(seed)], search, places, waiting.qsize())
            except HeadGoneError as error:
                message = f"not every certified cell could be probed: {error}. Was memory short?"
                found[len(tasks)] = [Finding(id="G203", message=message)]
    for _, findings in sorted(found.items()):
        yield from findings


def _work_side_by_side(
    work: Callable[[HeadSimulation], None],
    command: Sequence[str],
    search: Sequence[Path],
    places: HeadPlaces,
    tasks: int,
) -> None:
    """Work in several processes until none has anything left to do; raises the last `HeadGoneError` of one."""
    # A cluster whose machines are all gone may get others.
    most = max(1, min(places.most, tasks))
    gone: HeadGoneError | None = None
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(most))
        # Closing the processes comes first where this is left, so that no thread waits for an answer.
        started = [stack.enter_context(closing(HeadSimulation(places.start(command, search)))) for _ in range(most)]
        for done in [pool.submit(work, simulation) for simulation in started]:
            try:
                done.result()
            except HeadGoneError as error:
                gone = error
    if gone is not None:
        raise gone
