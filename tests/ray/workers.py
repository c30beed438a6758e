"""Workers whose card is a formula that depends on its kind; in a node with `LIE` set they are not what they say.

In a node with `HOLD` set they give no answer as long as the file that it names exists.
"""

import os
import time
from pathlib import Path

import msgspec

from acestep.errors import NotMeasuredError
from acestep.hardware.card import Card, CardKind
from acestep.units import GIB, MIB
from calibrate.executors.alone import CardAlone, SimulationAlone
from calibrate.executors.card_worker import CardWorker
from calibrate.executors.cards import simulated_as
from calibrate.executors.remote import WorkerReport, WorkerSetup
from tests.fakes import Hungry
from tests.faulty_card import FaultyProber

OTHER_CODE = "0.0.1+tree.0123456789abcdef"
SECONDS = 0.05
"""How long an answer takes in a node with `HOLD` set, so that something can happen meanwhile."""


def formula(kind: str) -> SimulationAlone:
    """The card of a kind, here or elsewhere."""
    card = simulated_as(kind)
    return SimulationAlone(Hungry(100 * MIB * card.capability[0] + 10 * MIB * card.capability[1]), card)


class KindWorker(CardWorker):
    """Answers by the formula of its kind."""

    def opened(self, setup: WorkerSetup) -> SimulationAlone | CardAlone:
        if os.environ.get("LIE") == "no card":
            raise NotMeasuredError("no NVIDIA card was found")
        return formula(setup.kind)

    def report(self) -> bytes:
        honest = msgspec.json.decode(super().report(), type=WorkerReport)
        lies = {
            "": {},
            "card": {"card": simulated_as("L4" if honest.card.capability != (8, 9) else "H100")},
            "code": {"setting": msgspec.structs.replace(honest.setting, code=OTHER_CODE)},
            "memory": {"foreign_bytes": 3 * GIB},
        }
        return msgspec.json.encode(msgspec.structs.replace(honest, **lies[os.environ.get("LIE", "")]))

    def answer(self, task: bytes) -> bytes:
        if hold := os.environ.get("HOLD"):
            time.sleep(SECONDS)
            while Path(hold).exists():
                time.sleep(SECONDS)
        return super().answer(task)


class FakeGpuWorker(CardWorker):
    """A card behind the real prober, whose children run no CUDA; in a node with `LIE` set others use the card."""

    def opened(self, setup: WorkerSetup) -> CardAlone:
        prober = FaultyProber("fits")
        prober.gauge.others = {1: 3 * GIB} if os.environ.get("LIE") else {}
        prober._before = prober.gauge.read()
        prober.card = Card(
            kind=CardKind.CUDA,
            name="NVIDIA L4",
            uuid=f"GPU-{os.getpid()}",
            total_bytes=24 * GIB,
            capability=(8, 9),
            driver="580.65.06",
        )
        return CardAlone(prober)
