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
from torch._dynamo.exc import TorchDynamoException

from acestep.checkpoints.libraries import AceStepTransformerBlock
from acestep.devices.out_of_memory import ran_out
from acestep.dit.blocks import EAGER, RowFunctions

R = TypeVar("R")


@cache
def compiled(backend: str = "inductor") -> RowFunctions:
    """The compiled functions; compiling happens at their first calls, once a process.

    Where no compiler is found then, as on Windows without Triton or on Linux without a C compiler, they run as they are
    and `uncompiled` says why.

    Mixing in self-attention's result stays as it is: a product and a sum, from layouts that differ between kernels.
    """
    compiler = _compiler(backend)
    return RowFunctions(
        heads=compiler(EAGER.heads),
        mix_=EAGER.mix_,
        cross_query=compiler(EAGER.cross_query),
        finish_=compiler(EAGER.finish_),
    )


def uncompiled(backend: str = "inductor") -> str:
    """Why the functions run as they are, in the compiler's words; empty while they do not."""
    return _compiler(backend).problem


class _Compiler:
    """Compiles functions for a layer and tensors, until it finds that it cannot; then all run as they are."""

    def __init__(self, backend: str) -> None:
        self.problem = ""
        self._backend = backend

    def __call__(self, function: Callable[..., R]) -> Callable[..., R]:
        graph = torch.compile(function, dynamic=True, backend=self._backend)

        def call(layer: AceStepTransformerBlock, *tensors: Tensor) -> R:
            if not self.problem:
                try:
                    # Detached tensors do not know what they are slices of, so how a song is cut makes no new graph.
                    return graph(layer, *(tensor.detach() for tensor in tensors))
                except TorchDynamoException as error:
                    full, problem = _read(getattr(error, "inner_exception", error))
                # A card that is full says nothing about its compiler; the retry with less may compile.
                if full:
                    raise torch.OutOfMemoryError(problem)
                self.problem = problem
            # Compiling fails before anything is computed, so nothing was changed in place yet.
            return function(layer, *tensors)

        return call


_compiler = cache(_Compiler)


def _read(error: BaseException) -> tuple[bool, str]:
    """Whether memory ran out, and the first line of what was said."""
    return ran_out(error), str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
