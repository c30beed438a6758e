"""Several simulated cards on this machine, one a core, each in a process of its own."""

import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Final

import msgspec

from calibrate.executors.base import Likely
from calibrate.executors.process import Process
from calibrate.executors.questions import Fit, JournalEntry, ProbeTask, Question
from calibrate.probes.base import SIMULATED_CARD, UNCONDITIONED
from calibrate.record.measurement import RecordedCardKind

EXECUTOR_WORKER = (sys.executable, "-m", "calibrate.executors.worker")

MOST_PROCESSES: Final = 4
"""More would wait for each other's decisions, at most of a gigabyte each."""


class Local:
    """Hands tasks to processes; runs that share a trace go to one of them, so that none is traced twice."""

    card = SIMULATED_CARD
    conditions = UNCONDITIONED

    def __init__(self, processes: int, command: Sequence[str] = EXECUTOR_WORKER) -> None:
        self._processes = processes
        self._command = command
        self._hands: list[_Hand] = []

    @property
    def device(self) -> str:
        """All of them simulate."""
        return RecordedCardKind.SIMULATED

    def one_of(self, wanted: Sequence[ProbeTask], likely: Likely) -> JournalEntry:
        """Keep every process at work on what is wanted, and return the first answer that comes."""
        while len(self._hands) < self._processes:
            self._hands.append(_Hand(self._command))
        for ahead in (lambda: wanted, likely):
            for hand in self._hands:
                self._give(hand, ahead)
        by_channel = {hand.channel: hand for hand in self._hands if hand.task}
        return next(hand for channel, hand in by_channel.items() if channel in wait(list(by_channel))).take()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for hand in self._hands:
            hand.close()

    def _give(self, hand: "_Hand", tasks: Likely) -> None:
        """Something to do for a process that has nothing, if there is something that no other has traced."""
        if hand.task:
            return
        others = [other for other in self._hands if other is not hand]
        under_way = {task for other in others for task in other.task}
        traced = {trace for other in others for trace in other.traced}
        free = [task for task in tasks() if task not in under_way and trace_of(task) not in traced]
        # What takes longest begins first, and then what has been traced already.
        for task in sorted(free, key=lambda task: (not isinstance(task, Fit), trace_of(task) not in hand.traced))[:1]:
            hand.give(task)


class _Hand:
    """A process, the task that it is working on, and what it has traced."""

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
    """What has to be traced for a task, as a task: caps are replays, and models differ in thinking only."""
    if isinstance(task, Fit):
        return task
    knobs = task.knobs if task.knobs.lm is None else msgspec.structs.replace(task.knobs, lm="any", lm_quantization=None)
    return Question(knobs=knobs, workload=task.workload, cap_bytes=0)


def usable_processes() -> int:
    """One for each core that this process may use, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)
