"""Weights that rest on the host without taking any of its memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from acestep.memory.tensors import map_storage, slots


def rest_on_host(modules: Iterable[nn.Module]) -> None:
    """Give meta weights host tensors that nothing ever writes; what is one tensor stays one."""
    resting: dict[int, tuple[Tensor, Tensor]] = {}
    for module in modules:
        for part in module.modules():
            for table, key, tensor in slots(part):
                # The meta tensor is kept beside its stand-in, so that no other can take its id meanwhile.
                if id(tensor) not in resting:
                    resting[id(tensor)] = (tensor, map_storage(tensor, _unwritten))
                table[key] = resting[id(tensor)][1]


def _unwritten(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
