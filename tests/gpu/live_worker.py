"""A probe's child that holds memory of a real card; its model name selects its fault.

python tests/gpu/live_worker.py FD
"""

import socket
import sys
from collections.abc import Callable

import torch

from acestep.units import GIB
from calibrate.probes import worker
from calibrate.probes.cuda_card import CudaCard
from calibrate.probes.messages import Done, Order, Setup
from tests.faulty_worker import FaultyEngine

HELD_BYTES = GIB


class LiveEngine(FaultyEngine):
    """The faults of the simulated child, with a gibibyte of the card held, and those that only a card has."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        self._card = CudaCard()
        self._held: list[torch.Tensor] = []

    def load(self, setup: Setup) -> str:
        settings = super().load(setup)
        self._card.open()
        return settings

    def run(self, order: Order, alive: Callable[[str], None]) -> Done:
        self._device = self._card.capped(order.cap_bytes)
        self._held.append(torch.ones(HELD_BYTES, dtype=torch.uint8, device="cuda"))
        torch.cuda.synchronize()
        return super().run(order, alive)

    def outside_bytes(self) -> int:
        return self._card.outside_bytes()

    def rest(self) -> int:
        self._held.clear()
        return self._card.flush()

    def _runs_out(self) -> None:
        while True:
            self._held.append(torch.empty(GIB, dtype=torch.uint8, device="cuda"))

    def _breaks_the_card_s_trust(self) -> None:
        """An index that is not there: from then on every call of this process fails."""
        torch.zeros(4, device="cuda")[torch.tensor([1 << 20], device="cuda")].sum().item()


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    worker.serve_probes(connection, LiveEngine(connection))
