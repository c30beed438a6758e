"""Several simulated cards on this machine, one for each core, each in its own process."""

import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Final

import msgspec

from calibrate.executors.base import Likely
from calibrate.executors.process import Process
from calibrate.executors.questions import Fit, JournalEntry, ProbeTask, Question
from calibrate.record.measurement import RecordedCardKind

EXECUTOR_WORKER = (sys.executable, "-m", "calibrate.executors.worker")

MOST_PROCESSES: Final = 4
"""More processes would wait for each other's decisions, and each takes up to a gigabyte."""


class Local:
    """Distributes tasks to processes; tasks that share a trace go to one process, so that none is traced twice."""

    def __init__(self, processes: int, command: Sequence[str] = EXECUTOR_WORKER) -> None:
        self._processes = processes
        self._command = command
        self._hands: list[_Hand] = []

    @property
    def device(self) -> str:
        """Always `"simulated"`."""
        return RecordedCardKind.SIMULATED

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Keep every process busy with the wanted tasks, and return the first answer."""
        while len(self._hands) < self._processes:
            self._hands.append(_Hand(self._command))
        for ahead in (lambda: wanted, likely):
            for hand in self._hands:
                self._give(hand, ahead)
        by_channel = {hand.channel: hand for hand in self._hands if hand.task}
        return next(hand for channel, hand in by_channel.items() if channel in wait(list(by_channel))).take()

    def close(self) -> None:
        """Stop the processes at once."""
        for hand in self._hands:
            hand.close()

    def _give(self, hand: "_Hand", tasks: Likely) -> None:
        """Give an idle process a task, if there is one that no other process has traced."""
        if hand.task:
            return
        others = [other for other in self._hands if other is not hand]
        under_way = {task for other in others for task in other.task}
        traced = {trace for other in others for trace in other.traced}
        free = [task for task in tasks() if task not in under_way and trace_of(task) not in traced]
        # The longest tasks first, then those with an existing trace.
        for task in sorted(free, key=lambda task: (not isinstance(task, Fit), trace_of(task) not in hand.traced))[:1]:
            hand.give(task)


class _Hand:
    """A process, its current task, and its traces."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process: Process[ProbeTask, JournalEntry] = Process(command)
        self.channel = self._process.channel
        self.task: list[ProbeTask] = []
        self.traced: set[ProbeTask] = set()

    def give(self, task: ProbeTask) -> None:
        self.traced.add(trace_of(task))
        self.task.append(task)
        self._process.ask(task)

    def take(self) -> JournalEntry:
        self.task.clear()
        return self._process.answer()

    def close(self) -> None:
        self._process.close()


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
