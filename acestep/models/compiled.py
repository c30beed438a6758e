"""The DiT's row functions compiled: everything between two attention kernels becomes a few fused ones.

Attention itself is called as it is: its kernels are fused already, and tracing a loop over a band would give another
graph for every song length. What is left takes some rows of any number and the layer as an argument, so all blocks
share one graph a function, whatever the song length. `torch.compile` on the module, as elsewhere, would compile a
`forward` that nothing calls.
"""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from acestep.models.blocks import EAGER, RowFunctions
from acestep.models.libraries import AceStepTransformerBlock

R = TypeVar("R")


@cache
def compiled(backend: str = "inductor") -> RowFunctions:
    """The compiled functions; compiling happens at their first calls, once a process.

    Mixing in self-attention's result stays as it is: a product and a sum, from layouts that differ between kernels.
    """
    return RowFunctions(
        heads=_compile(EAGER.heads, backend),
        mix_=EAGER.mix_,
        cross_query=_compile(EAGER.cross_query, backend),
        finish_=_compile(EAGER.finish_, backend),
    )


def _compile(function: Callable[..., R], backend: str) -> Callable[..., R]:
    graph = torch.compile(function, dynamic=True, backend=backend)

    def call(layer: AceStepTransformerBlock, *tensors: Tensor) -> R:
        # Detached tensors do not know what they are slices of, so how a song is cut makes no new graph.
        return graph(layer, *(tensor.detach() for tensor in tensors))

    return call
