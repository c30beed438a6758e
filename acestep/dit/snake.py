"""The audio codec's activation, Snake: ``x + sin(alpha x)^2 / beta``, in one pass over the memory where Triton runs.

PyTorch's five operations on the values read and write the largest tensors of a decode eleven times for each activation,
which is most of the time of decoding; one kernel reads once and writes once. It computes in float32 whatever the dtype,
and rounds once.

`acestep::snake` and `acestep::snake_` are operators, so that whatever counts operations sees one. They exist for CUDA,
and without values on meta.
"""

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from acestep.checkpoints.libraries import Snake1d
from acestep.devices.triton_kernel import TritonKernel

BETA_FLOOR: Final = 1e-9
"""Added to beta by the library."""

_OPERATORS: Any = torch.library.Library("acestep", "FRAGMENT")  # type: ignore[no-untyped-call] # torch leaves it untyped
_SCALES = "Tensor alpha, Tensor inverse_beta"
_OPERATORS.define(f"snake(Tensor hidden, {_SCALES}) -> Tensor", tags=(torch.Tag.pointwise,))
_OPERATORS.define(f"snake_(Tensor(a!) hidden, {_SCALES}) -> Tensor(a!)", tags=(torch.Tag.pointwise,))


class Scales(NamedTuple):
    """The parameters of one Snake, [1, channels, 1] each."""

    alpha: Tensor
    inverse_beta: Tensor


class Snakes:
    """The Snakes of a coder: `hidden` [batch, channels, samples] to the same shape.

    Their parameters are on a scale of logarithms; they are brought from it once. `fused`: in one kernel, on a device
    that has Triton, or on meta; otherwise there is a temporary of the size of `hidden`.
    """

    def __init__(self, coder: nn.Module, *, fused: bool) -> None:
        self._fused = fused
        self._scales = {module: _scales(module, fused) for module in coder.modules() if isinstance(module, Snake1d)}

    def new(self, hidden: Tensor, snake: Snake1d) -> Tensor:
        """Apply a Snake; the result is a new tensor."""
        scales = self._scales[snake]
        if self._fused:
            return torch.ops.acestep.snake(hidden, *scales)  # type: ignore[no-any-return]
        return _bump(hidden, scales).add_(hidden)

    def in_place(self, hidden: Tensor, snake: Snake1d) -> Tensor:
        """Apply a Snake; the result is stored in `hidden`."""
        scales = self._scales[snake]
        if self._fused:
            return torch.ops.acestep.snake_(hidden, *scales)  # type: ignore[no-any-return]
        return hidden.add_(_bump(hidden, scales))


def _scales(snake: Snake1d, fused: bool) -> Scales:
    """The parameters, in float32 for the kernel, and otherwise in their own dtype, as the library computes."""
    alpha, beta = snake.alpha.detach(), snake.beta.detach()
    if fused:
        alpha, beta = alpha.float(), beta.float()
    if snake.logscale:
        alpha, beta = torch.exp(alpha), torch.exp(beta)
    return Scales(alpha, (beta + BETA_FLOOR).reciprocal())


def _bump(hidden: Tensor, scales: Scales) -> Tensor:
    """``sin(alpha hidden)^2 / beta``, in one new tensor."""
    bump = scales.alpha * hidden
    bump.sin_().pow_(2)
    return bump.mul_(scales.inverse_beta)


class _Kernel(TritonKernel):
    """The Triton kernel, or where it computes nothing, PyTorch's operations."""

    def __init__(self) -> None:
        super().__init__("decoding")

    def __call__(self, result: Tensor, hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
        """Compute `result`, which may be `hidden`, and return it."""

        def launched() -> bool:
            # Triton is not everywhere, and takes a while to import.
            from acestep.dit.snake_kernel import launch

            return launch(result, hidden, alpha, inverse_beta)

        if self.computed(hidden, launched):
            return result
        # Nothing was computed yet, also where compiling failed, so no tensor was changed.
        bump = _bump(hidden, Scales(alpha.to(hidden.dtype), inverse_beta.to(hidden.dtype)))
        return torch.add(hidden, bump, out=result)


_kernel = _Kernel()


def _new_on_cuda(hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
    return _kernel(torch.empty_like(hidden), hidden, alpha, inverse_beta)


def _in_place_on_cuda(hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
    return _kernel(hidden, hidden, alpha, inverse_beta)


def _new_on_meta(hidden: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(hidden)


def _in_place_on_meta(hidden: Tensor, *_: Tensor) -> Tensor:
    return hidden


_OPERATORS.impl("snake", _new_on_cuda, "CUDA")
_OPERATORS.impl("snake_", _in_place_on_cuda, "CUDA")
_OPERATORS.impl("snake", _new_on_meta, "Meta")
_OPERATORS.impl("snake_", _in_place_on_meta, "Meta")
