"""The DiT's row functions compiled: everything between two attention kernels becomes a few fused ones.

Attention itself is called as it is: its kernels are fused already, and tracing a loop over a band would give another
graph for every song length. What is left takes some rows of any number and the layer as an argument, so all blocks
share one graph a function, whatever the song length. `torch.compile` on the module, as elsewhere, would compile a
`forward` that nothing calls.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from acestep.models.blocks import EAGER, RowFunctions
from acestep.models.libraries import AceStepTransformerBlock

R = TypeVar("R")


class UncompiledWarning(UserWarning):
    """What was to be compiled runs as it is."""


@cache
def compiled(backend: str = "inductor") -> RowFunctions:
    """The compiled functions; compiling happens at their first calls, once a process.

    Where no compiler is found then, as on Windows without Triton or on Linux without a C compiler, an
    `UncompiledWarning` says so and they run as they are.

    Mixing in self-attention's result stays as it is: a product and a sum, from layouts that differ between kernels.
    """
    compiler = _Compiler(backend)
    return RowFunctions(
        heads=compiler(EAGER.heads),
        mix_=EAGER.mix_,
        cross_query=compiler(EAGER.cross_query),
        finish_=compiler(EAGER.finish_),
    )


def _why(error: TorchDynamoException) -> str:
    """The first line of what a compiler said; PyTorch wraps it in an error of its own."""
    return str(getattr(error, "inner_exception", error)).strip().partition("\n")[0].rstrip(".")


class _Compiler:
    """Compiles functions for a layer and tensors, until it finds that it cannot; then all run as they are."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._works = True

    def __call__(self, function: Callable[..., R]) -> Callable[..., R]:
        graph = torch.compile(function, dynamic=True, backend=self._backend)

        def call(layer: AceStepTransformerBlock, *tensors: Tensor) -> R:
            if self._works:
                try:
                    # Detached tensors do not know what they are slices of, so how a song is cut makes no new graph.
                    return graph(layer, *(tensor.detach() for tensor in tensors))
                except TorchDynamoException as error:
                    # Compiling fails before anything is computed, so nothing was changed in place yet.
                    problem = _why(error)
                self._works = False
                warnings.warn(
                    f"The transformer cannot be compiled here ({problem}); it runs uncompiled, which is slower and"
                    " sounds the same. --no-compile does without this message.",
                    UncompiledWarning,
                    stacklevel=2,
                )
            return function(layer, *tensors)

        return call
