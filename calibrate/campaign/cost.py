"""How long the questions of a campaign take beside each other, so that a time left can be told."""

from collections.abc import Iterable
from typing import Final, Protocol

from calibrate.executors.local import trace_of
from calibrate.executors.questions import Fit, ProbeTask
from calibrate.record.measurement import RecordedCardKind

TRACE: Final = 1.0
REPLAY: Final = 0.4
FIT: Final = 25.0
"""On the simulated card: a new run, a run that was traced already with another cap or language model, and the model of
the VRAM guard. A campaign of turbo was timed: 0.9, 0.35 and 23 CPU seconds on average."""


class Cost(Protocol):
    """Relative times of tasks, which may depend on those before."""

    def of(self, task: ProbeTask) -> float:
        """Return the cost of a task that was just done."""
        ...

    def ahead(self, tasks: Iterable[ProbeTask]) -> float:
        """Return the cost of tasks that are still to come."""
        ...


class SimulatedCost:
    """A run is traced once; under every other cap the trace is replayed."""

    def __init__(self) -> None:
        self._traced: set[ProbeTask] = set()

    def of(self, task: ProbeTask) -> float:
        return _traced(task, self._traced)

    def ahead(self, tasks: Iterable[ProbeTask]) -> float:
        traced = set(self._traced)
        return sum(_traced(task, traced) for task in tasks)


def _traced(task: ProbeTask, traced: set[ProbeTask]) -> float:
    if isinstance(task, Fit):
        return FIT
    trace = trace_of(task)
    cost = REPLAY if trace in traced else TRACE
    traced.add(trace)
    return cost


START_S: Final = 5.0
SECOND_OF_SONG_S: Final = 0.02
ALL_STEPS: Final = 2.0
"""On a real card: the seconds of any run, those of two steps and decoding for each second of song on a card such as an
RTX 3060 (the estimates of `calibrate.timing`), and how many times as long a run with all steps takes."""


class CardCost:
    """A real card takes time for the length of the songs."""

    def of(self, task: ProbeTask) -> float:
        if isinstance(task, Fit):
            return 0.0
        songs = task.workload.batch * task.workload.duration_s
        return START_S + SECOND_OF_SONG_S * songs * (ALL_STEPS if task.full else 1.0)

    def ahead(self, tasks: Iterable[ProbeTask]) -> float:
        return sum(map(self.of, tasks))


def cost_on(device: str) -> Cost:
    """Return the costs of a campaign on a device."""
    return SimulatedCost() if device == RecordedCardKind.SIMULATED else CardCost()
