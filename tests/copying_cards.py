"""Cards made of ordinary memory: moves are copies, and streamed copies arrive as early or as late as they may."""

from collections.abc import Sequence

import torch
from torch import Tensor

from acestep.devices.base import DeviceEvent
from acestep.devices.cpu import CpuDevice


class EagerCard(CpuDevice):
    """A card whose copies arrive as early as allowed: they overwrite a slot's old contents at once."""

    shares_host_memory = False

    def __init__(self, *, pinned_bytes: int = 0) -> None:
        self.pinned_bytes = pinned_bytes
        self.reserved = 0
        self.copies = 0

    def upload(self, host: Tensor, owner: str) -> Tensor:
        return host.clone()

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        self.reserved += 1
        return torch.full((n_bytes,), 255, dtype=torch.uint8)

    def pinned(self, n_bytes: int) -> Tensor | None:
        if n_bytes > self.pinned_bytes:
            return None
        self.pinned_bytes -= n_bytes
        return torch.full((n_bytes,), 255, dtype=torch.uint8)

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        self.copies += 1
        return super().fetch(pairs, after)


class LateCard(EagerCard):
    """A card whose copies arrive only when they are waited for."""

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        self.copies += 1
        todo = list(pairs)

        def arrive() -> None:
            while todo:
                target, source = todo.pop()
                target.copy_(source)

        return arrive

    def wait(self, mark: DeviceEvent) -> None:
        mark()
