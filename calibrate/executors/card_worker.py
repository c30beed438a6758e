"""A worker on the machine of a card: opens it, says what it found, and answers; all messages are JSON."""

import gc

import msgspec

from acestep.errors import NotMeasuredError
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.cards import simulated_as
from calibrate.executors.questions import ProbeTask
from calibrate.executors.remote import WorkerAnswer, WorkerReport, WorkerSetup
from calibrate.executors.worker import simulated_prober
from calibrate.files import digest
from calibrate.fingerprint import setting_here
from calibrate.record.measurement import RecordedCardKind


class CardWorker:
    """One card. The prober keeps its model loaded, or its traces, from one task to the next."""

    def __init__(self, setup: bytes) -> None:
        self._alone = self.opened(msgspec.json.decode(setup, type=WorkerSetup))
        # Imported objects are frozen, so that garbage collection of the traces does not scan them.
        gc.freeze()

    def opened(self, setup: WorkerSetup) -> CardAlone | SimulationAlone:
        """The card; raises `NotMeasuredError` if there is none."""
        if setup.device == RecordedCardKind.SIMULATED:
            card = simulated_as(setup.kind)
            return SimulationAlone(simulated_prober(setup.system, card.capability), card)
        from calibrate.probes.cuda import CudaProber

        return CardAlone(CudaProber(setup.cap_method))

    def report(self) -> bytes:
        """A `WorkerReport`."""
        alone = self._alone
        real = alone.device == RecordedCardKind.CUDA
        found = WorkerReport(
            device=alone.device,
            card=msgspec.structs.replace(alone.card, uuid="" if real else alone.card.uuid),
            setting=setting_here(),
            foreign_bytes=alone.conditions.foreign_bytes,
            serial=digest(alone.card.uuid) if real and alone.card.uuid else "",
        )
        return msgspec.json.encode(found)

    def answer(self, task: bytes) -> bytes:
        """The `WorkerAnswer` to a task."""
        asked: ProbeTask = msgspec.json.decode(task, type=ProbeTask)
        entry, problem = None, ""
        try:
            entry = self._alone.one_of([asked], list)
        except NotMeasuredError as error:
            problem = str(error)
        return msgspec.json.encode(WorkerAnswer(entry=entry, conditions=self._alone.conditions, problem=problem))

    def close(self) -> None:
        """End the processes of the card."""
        self._alone.close()
