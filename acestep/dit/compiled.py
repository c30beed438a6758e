"""The DiT's row functions, compiled: the operations between two attention kernels become a few fused kernels.

Attention is not compiled: its kernels are fused already, and tracing a loop over a band would give another graph for
every song length. The other functions take any number of rows and the layer as an argument, so all blocks share one
graph for each function, whatever the song length. `torch.compile` on the module, the usual way, would compile a
`forward` that is never called.
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
from acestep.errors import first_line

R = TypeVar("R")


@cache
def compiled(backend: str = "inductor") -> RowFunctions:
    """Return the compiled functions; they are compiled at their first calls, once in a process.

    If no compiler is found then, as on Windows without Triton or on Linux without a C compiler, the functions run
    uncompiled and `uncompiled` returns the reason.

    The function that adds self-attention's result is not compiled: it is one product and one sum, over layouts that
    differ between kernels.
    """
    compiler = _compiler(backend)
    return RowFunctions(
        heads=compiler(EAGER.heads),
        mix_=EAGER.mix_,
        cross_query=compiler(EAGER.cross_query),
        finish_=compiler(EAGER.finish_),
    )


def uncompiled(backend: str = "inductor") -> str | None:
    """Return why the functions run uncompiled, in the compiler's words; None if they do not."""
    return _compiler(backend).problem


class _Compiler:
    """Compiles functions of a layer and tensors; after the first failure all functions run uncompiled."""

    def __init__(self, backend: str) -> None:
        self.problem: str | None = None
        self._backend = backend

    def __call__(self, function: Callable[..., R]) -> Callable[..., R]:
        graph = torch.compile(function, dynamic=True, backend=self._backend)

        def call(layer: AceStepTransformerBlock, *tensors: Tensor) -> R:
            if self.problem is None:
                try:
                    # A detached tensor has no reference to the tensor it is a slice of, so other ways to cut a song
                    # need no new graph.
                    return graph(layer, *(tensor.detach() for tensor in tensors))
                except TorchDynamoException as error:
                    full, problem = _read(getattr(error, "inner_exception", error))
                # An out-of-memory error does not mean that the compiler fails; the retry with less memory may compile.
                if full:
                    raise torch.OutOfMemoryError(problem)
                self.problem = problem
            # Compiling fails before anything is computed, so no tensor was changed yet.
            return function(layer, *tensors)

        return call


_compiler = cache(_Compiler)


def _read(error: BaseException) -> tuple[bool, str]:
    """Return whether memory ran out, and the first line of the error."""
    return ran_out(error), first_line(error).rstrip(".")
