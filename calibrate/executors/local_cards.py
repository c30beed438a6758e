"""The cards of this machine, one process for each: its GPUs, or as many simulated cards at once as it has cores."""

import os
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from tempfile import TemporaryFile
from typing import IO, Final, cast

import msgspec

from acestep.errors import NotMeasuredError
from acestep.hardware.card import Card
from acestep.hardware.detection import DEVICE_VARIABLE, LM_DEVICE_VARIABLE
from acestep.hardware.detection.visible import CUDA_VARIABLE
from acestep.limits.capabilities import computes_in_float32
from calibrate.executors.cards import kinds_of
from calibrate.executors.local import usable_processes
from calibrate.executors.pool import Process
from calibrate.executors.questions import ProbeTask
from calibrate.executors.remote import Place, TaskAnswered, WorkerEvent, WorkerLost, WorkerOpened, WorkerSetup
from calibrate.probes.child import TAIL_BYTES
from calibrate.probes.cuda import found_cards
from calibrate.record.measurement import RecordedCardKind

HOST: Final = "this machine"

CARD_PROCESS: Final = (sys.executable, "-m", "calibrate.executors.card_process")

RESTART_S: Final = 5.0
"""How long to wait for a card: a process that ended is started again at once, and no card is added to a machine."""

FREED_S: Final = 3.0
"""How long a GPU stays without a process after one ended on it: its memory is then free again."""

LONGEST_REASON: Final = 200
"""Characters of a reason."""


class LocalMachine:
    """The kinds of card of this machine; simulated, those that were `asked` for, or else those of its GPUs."""

    name, verb = HOST, "has"
    command: Sequence[str] = CARD_PROCESS

    def __init__(self, asked: Sequence[str] = ()) -> None:
        self._asked = asked
        self._found: dict[str, list[Card]] = {}
        self._left_out: list[Card] = []
        self._turns = threading.Semaphore(usable_processes())

    def kinds(self, device: str) -> dict[str, list[Place]]:
        """As `Machines.kinds`; every kind of simulated card has as many as there are processes at once.

        Raises `NotMeasuredError` too where one of several GPUs tells no UUID.
        """
        if device == RecordedCardKind.SIMULATED:
            cards = [Place(node="", host=HOST, number=number + 1) for number in range(usable_processes())]
            return dict.fromkeys(self._asked or self._gpus(), cards)
        used = [card for cards in self._gpus().values() for card in cards]
        if len(used) > 1 and (nameless := next((card for card in used if not card.uuid), None)):
            raise NotMeasuredError(
                f"{nameless.name} tells no UUID, by which each of the {len(used)} cards here gets a process of its own:"
                f" choose one card with {CUDA_VARIABLE}"
            )
        return {
            kind: [Place(node=card.uuid, host=HOST, number=number + 1) for number, card in enumerate(cards)]
            for kind, cards in self._gpus().items()
        }

    def left_out(self) -> list[str]:
        """Return a sentence for every GPU that computes in float32."""
        why = "has no bfloat16 and computes in float32, where everything takes twice as much, so it is left out"
        return [f"{card.name} {why}." for card in self._left_out]

    def workers(self, setup: WorkerSetup) -> "LocalWorkers":
        """The processes of one kind of card."""
        return LocalWorkers(self, setup)

    def close(self) -> None:
        """Do nothing: every fleet ends its own processes."""

    def take_turn(self) -> bool:
        """Return whether one more process may simulate now; one that may gives its turn back when it ends."""
        return self._turns.acquire(blocking=False)

    def give_turn(self) -> None:
        """Let another process simulate."""
        self._turns.release()

    def _gpus(self) -> dict[str, list[Card]]:
        if not self._found:
            cards = found_cards(_without_wishes())
            self._left_out = [card for card in cards if computes_in_float32(card)]
            self._found = kinds_of([card for card in cards if card not in self._left_out])
        return self._found


class LocalWorkers:
    """The processes of one kind of card; on a GPU each sees its own alone."""

    patience_s = RESTART_S

    def __init__(self, machine: LocalMachine, setup: WorkerSetup) -> None:
        self._machine = machine
        self._setup = setup
        self._simulated = setup.device == RecordedCardKind.SIMULATED
        self._places = machine.kinds(setup.device)[setup.kind]
        self._waiting: list[Place] = []
        self._starting: set[Place] = set()
        self._processes: dict[Place, Process[bytes, bytes]] = {}
        self._errors: dict[Place, IO[bytes]] = {}
        self._ended: dict[Place, float] = {}

    def places(self) -> Sequence[Place]:
        return self._places

    def start(self, place: Place) -> None:
        self._waiting.append(place)

    def ask(self, place: Place, task: ProbeTask) -> None:
        self._processes[place].ask(msgspec.json.encode(task))

    def stop(self, place: Place) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        self._starting.discard(place)
        if (process := self._processes.pop(place, None)) is not None:
            process.close()
            self._errors.pop(place).close()
            self._ended[place] = time.monotonic()
            if self._simulated:
                self._machine.give_turn()

    def next_event(self, timeout_s: float) -> WorkerEvent | None:
        while (place := self._startable()) is not None:
            self._waiting.remove(place)
            self._begin(place)
        at_work = {process.channel: place for place, process in self._processes.items() if process.task is not None}
        if not at_work:
            time.sleep(timeout_s)
            return None
        ready = wait(list(at_work), timeout_s)
        return self._event(at_work[cast(Connection, ready[0])]) if ready else None

    def close(self) -> None:
        for place in [*self._waiting, *self._processes]:
            self.stop(place)

    def _startable(self) -> Place | None:
        """A waiting card that is free."""
        if self._simulated:
            return self._waiting[0] if self._waiting and self._machine.take_turn() else None
        free = time.monotonic() - FREED_S
        return next((place for place in self._waiting if self._ended.get(place, free) <= free), None)

    def _begin(self, place: Place) -> None:
        self._errors[place] = TemporaryFile()  # noqa: SIM115 open as long as the process
        process: Process[bytes, bytes] = Process(self._machine.command, self._environ(place), self._errors[place])
        self._processes[place] = process
        self._starting.add(place)
        process.ask(msgspec.json.encode(self._setup))

    def _environ(self, place: Place) -> dict[str, str]:
        """All of ours, but the card of the place is the only one."""
        environ = _without_wishes()
        return {**environ, CUDA_VARIABLE: place.node} if place.node else environ

    def _event(self, place: Place) -> WorkerEvent:
        opening = place in self._starting
        self._starting.discard(place)
        try:
            said = self._processes[place].answer()
        except NotMeasuredError as error:
            last = self._last_words(place)
            self.stop(place)
            return WorkerLost(place=place, reason=f"{error}{f'; it said: {last}' if last else ''}")
        return WorkerOpened(place=place, report=said) if opening else TaskAnswered(place=place, answer=said)

    def _last_words(self, place: Place) -> str:
        """The last line that a process wrote to stderr."""
        errors = self._errors[place]
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = (line.strip() for line in reversed(errors.read().decode(errors="replace").split("\n")))
        return next((line[:LONGEST_REASON] for line in lines if line), "")


def _without_wishes() -> dict[str, str]:
    """The environment, without a choice of one card of several."""
    return {name: value for name, value in os.environ.items() if name not in (DEVICE_VARIABLE, LM_DEVICE_VARIABLE)}
