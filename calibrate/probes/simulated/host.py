"""Weights that count as host tensors without taking any host memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from acestep.memory.tensors import map_storage, slots


def rest_on_host(modules: Iterable[nn.Module]) -> None:
    """Give meta weights host tensors that are never written; shared tensors stay shared."""
    resting: dict[int, tuple[Tensor, Tensor]] = {}
    for module in modules:
        for part in module.modules():
            for table, key, tensor in slots(part):
                # The meta tensor is kept with its replacement, so that no other object can get its id meanwhile.
                if id(tensor) not in resting:
                    resting[id(tensor)] = (tensor, map_storage(tensor, _unwritten))
                table[key] = resting[id(tensor)][1]


def _unwritten(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
