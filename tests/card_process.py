"""A process with one card that is a formula, instead of `calibrate.executors.card_process`.

python -m tests.card_process FD

On a card that is not simulated it says which one its environment shows. With `END_ONCE`, the path of a file, it ends in
the middle of a run if no process did so before.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec

from acestep.hardware.detection import DEVICE_VARIABLE
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.card_process import OneCard
from calibrate.executors.card_worker import CardWorker
from calibrate.executors.remote import WorkerSetup
from calibrate.executors.worker import answer_all
from tests.fake_workers import FormulaCard, FormulaWorker

ENDED = 9
BEFORE_IT_ENDS = 2
"""Answers that a process gives before."""


class ShownCard(FormulaCard):
    """The card of the environment."""

    def __init__(self) -> None:
        super().__init__()
        assert DEVICE_VARIABLE not in os.environ, "a wish for one of several cards means nothing to one card"
        self.card = msgspec.structs.replace(FormulaCard.card, uuid=os.environ["CUDA_VISIBLE_DEVICES"])


class ProcessWorker(CardWorker):
    """A simulated card, or the one that is shown."""

    answers = 0

    def opened(self, setup: WorkerSetup) -> CardAlone | SimulationAlone:
        return FormulaWorker.opened(self, setup) if setup.device == "simulated" else CardAlone(ShownCard())  # type: ignore[arg-type]

    def answer(self, task: bytes) -> bytes:
        self.answers += 1
        if (path := os.environ.get("END_ONCE")) and self.answers > BEFORE_IT_ENDS and not Path(path).exists():
            Path(path).touch()
            sys.stderr.write("the card fell off the bus\n")
            sys.stderr.flush()
            os._exit(ENDED)
        return super().answer(task)


if __name__ == "__main__":
    # Only the number of steps is needed of it, and it imports torch.
    sys.modules["acestep.dit.sampler"] = SimpleNamespace(steps_for=lambda variant, steps: 8)  # type: ignore[assignment]
    answer_all(int(sys.argv[1]), lambda: OneCard(ProcessWorker))
