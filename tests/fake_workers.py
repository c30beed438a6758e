"""Workers of a fleet in this process: strict, in an order that a seed draws, lost or lying where a test says so."""

import random
from collections.abc import Callable, Sequence

import msgspec

from acestep.budgets import System
from acestep.knobs import Knobs
from acestep.units import GIB
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.card_worker import CardWorker
from calibrate.executors.cards import simulated_as
from calibrate.executors.questions import ProbeTask
from calibrate.executors.remote import Place, TaskAnswered, WorkerEvent, WorkerLost, WorkerOpened, WorkerSetup
from calibrate.probes.base import UNCONDITIONED, CapMethod, ProbeResult
from calibrate.workload import Workload
from tests.fakes import AnalyticProber

SETUP = WorkerSetup(device="simulated", kind="H100", system=System.LINUX, cap_method=CapMethod.MODEL)

Spoil = Callable[[bytes], bytes]


class FormulaWorker(CardWorker):
    """A worker whose card is a formula."""

    def opened(self, setup: WorkerSetup) -> SimulationAlone:
        assert setup.device == "simulated"
        return SimulationAlone(AnalyticProber(), simulated_as(setup.kind))


class FormulaCard(AnalyticProber):
    """A real card as far as a campaign can tell; it runs requests to their end too."""

    device = "cuda"
    card = msgspec.structs.replace(simulated_as("L4"), name="NVIDIA L4", total_bytes=24 * GIB, driver="580.65.06")
    conditions = UNCONDITIONED

    def certify(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        return self.probe(knobs, workload, cap_bytes)

    def close(self) -> None:
        """Nothing was started."""


class FormulaCardWorker(CardWorker):
    """A worker whose card is such a one."""

    def opened(self, setup: WorkerSetup) -> CardAlone:
        return CardAlone(FormulaCard())


def place(number: int) -> Place:
    return Place(node=f"node-{number}", host=f"10.0.0.{number}", number=1)


class FakeWorkers:
    """Cards that answer one at a time; refuses what no cluster could do.

    `lose` is asked before each answer whether its worker is lost instead, `hang` whether it never comes; `report` and
    `answer` change what a worker of a place says. A lost place is gone if it is in `gone`.
    """

    patience_s = 60.0

    def __init__(
        self, places: int = 3, seed: int = 0, setup: WorkerSetup = SETUP, worker: type[CardWorker] = FormulaWorker
    ) -> None:
        self.there = [place(number) for number in range(1, places + 1)]
        self.seconds = 0.0
        self.asked: list[tuple[Place, ProbeTask]] = []
        self.started: list[Place] = []
        self.stopped: list[Place] = []
        self.closed = False
        self.lose: Callable[[Place, ProbeTask], bool] = lambda place, task: False
        self.hang: Callable[[Place, ProbeTask], bool] = lambda place, task: False
        self.report: dict[Place, Spoil] = {}
        self.answer: dict[Place, Spoil] = {}
        self.gone: set[Place] = set()
        self._setup = setup
        self._worker = worker
        self._dice = random.Random(seed)  # noqa: S311 a test's dice
        self._open: dict[Place, CardWorker] = {}
        self._starting: list[Place] = []
        self._tasks: dict[Place, ProbeTask] = {}
        self._hung: set[Place] = set()

    def clock(self) -> float:
        return self.seconds

    def places(self) -> Sequence[Place]:
        return [one for one in self.there if one not in self.gone]

    def start(self, place: Place) -> None:
        assert not self.closed
        assert place in self.there
        assert place not in self._open, f"{place} has a worker already"
        assert place not in self._starting, f"{place} is being started already"
        self.started.append(place)
        self._starting.append(place)

    def ask(self, place: Place, task: ProbeTask) -> None:
        assert place in self._open, f"{place} has no worker"
        assert place not in self._tasks, f"{place} is at work"
        assert place not in self._hung, f"{place} is at work"
        self.asked.append((place, task))
        if self.hang(place, task):
            self._hung.add(place)
        else:
            self._tasks[place] = task

    def stop(self, place: Place) -> None:
        self.stopped.append(place)
        self._open.pop(place, None)
        self._tasks.pop(place, None)
        self._hung.discard(place)

    def next_event(self, timeout_s: float) -> WorkerEvent | None:
        ready = [*self._starting, *self._tasks]
        self.seconds += timeout_s
        if not ready:
            self.seconds += 60.0 * bool(self._hung)
            return None
        place = self._dice.choice(ready)
        if place in self._starting:
            return self._opened(place)
        task = self._tasks.pop(place)
        if self.lose(place, task):
            del self._open[place]
            return WorkerLost(place=place, reason="the node is gone")
        said = self._open[place].answer(msgspec.json.encode(task))
        return TaskAnswered(place=place, answer=self.answer.get(place, bytes)(said))

    def close(self) -> None:
        self.closed = True

    def _opened(self, place: Place) -> WorkerEvent:
        self._starting.remove(place)
        if place in self.gone:
            return WorkerLost(place=place, reason="the node is gone")
        self._open[place] = self._worker(msgspec.json.encode(self._setup))
        return WorkerOpened(place=place, report=self.report.get(place, bytes)(self._open[place].report()))


def replaced(old: bytes, new: bytes) -> Spoil:
    """Change a part of what a worker says, which must be there."""

    def spoil(said: bytes) -> bytes:
        assert old in said, f"{old!r} is not in {said!r}"
        return said.replace(old, new)

    return spoil
