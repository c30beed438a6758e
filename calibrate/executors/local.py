"""Several simulated cards on this machine, one for each core, each in its own process."""

import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from acestep.budgets import System
from acestep.hardware.card import SIMULATED_CAPABILITY, Card
from calibrate.executors.base import Likely
from calibrate.executors.pool import Process, ProcessPool
from calibrate.executors.questions import Fit, JournalEntry, ProbeTask, Question
from calibrate.fingerprint import ProbeSetting, setting_here
from calibrate.probes.base import SIMULATED_CARD, UNCONDITIONED
from calibrate.record.measurement import RecordedCardKind


def worker_for(system: System, capability: tuple[int, int] = SIMULATED_CAPABILITY) -> tuple[str, ...]:
    """The command of a process that simulates cards of a compute capability under a system."""
    return sys.executable, "-m", "calibrate.executors.worker", system.value, ".".join(map(str, capability))


MOST_PROCESSES: Final = 4
"""More processes would wait for each other's decisions, and each takes up to a gigabyte."""


class Local:
    """Distributes tasks to processes; tasks that share a trace go to one process, so that none is traced twice."""

    conditions = UNCONDITIONED
    serials = ()

    def __init__(self, processes: int, command: Sequence[str], card: Card = SIMULATED_CARD) -> None:
        self.card = card
        self.pool: ProcessPool[ProbeTask, JournalEntry] = ProcessPool(processes, command)
        self._traced: defaultdict[Process[ProbeTask, JournalEntry], set[ProbeTask]] = defaultdict(set)

    @property
    def device(self) -> str:
        return RecordedCardKind.SIMULATED

    @property
    def setting(self) -> ProbeSetting:
        return setting_here()

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Keep every process at work on what is wanted, and return the first answer that comes."""
        for ahead in (lambda: wanted, likely):
            for process in self.pool.processes:
                if process.task is None:
                    self._give(process, ahead)
        return self.pool.first_answer()

    def close(self) -> None:
        self.pool.close()

    def _give(self, process: Process[ProbeTask, JournalEntry], tasks: Likely) -> None:
        """Something to do for a process that has nothing, if there is something that no other has traced."""
        others = [other for other in self.pool.processes if other is not process]
        under_way = {other.task for other in others}
        traced = {trace for other in others for trace in self._traced[other]}
        free = [task for task in tasks() if task not in under_way and trace_of(task) not in traced]
        # What takes longest begins first, and then what has been traced already.
        own = self._traced[process]
        for task in sorted(free, key=lambda task: (not isinstance(task, Fit), trace_of(task) not in own))[:1]:
            own.add(trace_of(task))
            process.ask(task)


def trace_of(task: ProbeTask) -> ProbeTask:
    """Return the task that stands for a task's trace: caps are replays, and models differ in thinking only."""
    if isinstance(task, Fit):
        return task
    knobs = task.knobs if task.knobs.lm is None else msgspec.structs.replace(task.knobs, lm="any", lm_quantization=None)
    return Question(knobs=knobs, workload=task.workload, cap_bytes=0)


def usable_processes() -> int:
    """Return the number of processes: one for each usable core, up to a limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)
