"""A simulated card whose ledger reports to a book under a cap, and tensors on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.memo import Tape


class Card:
    """A simulated card under a cap, its modes active inside `on`."""

    def __init__(self, cap_bytes: int = 1 << 40) -> None:
        self.book = LiveBook(cap_bytes)
        self.tape = Tape(self.book)
        self.kernels = CudaKernels((8, 6))
        self.ledger = Ledger(self.tape, self.kernels)
        self.device = SimulatedDevice(self.ledger, self.book, dtype=torch.bfloat16, grouped_attention=True)

    @contextmanager
    def on(self) -> Iterator[None]:
        with self.kernels, self.ledger, torch.no_grad():
            yield


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")
