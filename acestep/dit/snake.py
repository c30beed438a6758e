"""The audio codec's activation, Snake: ``x + sin(alpha x)^2 / beta``, in one pass over the memory where Triton runs.

PyTorch's own operations read and write the largest tensors of a decode eleven times for each activation, which is most
of the time of decoding; one kernel reads once and writes once. It computes in float32 whatever the dtype, and rounds
once.

`acestep::snake` and `acestep::snake_` are operators, so that whatever counts operations sees one. They exist for CUDA,
and without values on meta.
"""

import logging
from functools import cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from acestep.checkpoints.libraries import Snake1d
from acestep.devices.base import Device
from acestep.devices.card_faults import is_card_fault
from acestep.devices.out_of_memory import ran_out
from acestep.errors import first_line

_LOG = logging.getLogger(__name__)

BETA_FLOOR: Final = 1e-9
"""Added to beta by the library."""

_OPERATORS: Any = torch.library.Library("acestep", "DEF")  # type: ignore[no-untyped-call] # torch leaves it untyped
_SCALES = "Tensor alpha, Tensor inverse_beta"
_OPERATORS.define(f"snake(Tensor hidden, {_SCALES}) -> Tensor", tags=(torch.Tag.pointwise,))
_OPERATORS.define(f"snake_(Tensor(a!) hidden, {_SCALES}) -> Tensor(a!)", tags=(torch.Tag.pointwise,))


class Scales(NamedTuple):
    """The parameters of one Snake, [1, channels, 1] each."""

    alpha: Tensor
    inverse_beta: Tensor


class Snakes:
    """The Snakes of a coder: `hidden` [batch, channels, samples] to the same shape.

    Their parameters are on a scale of logarithms; they are brought from it once. Unless `fused`, there is a temporary
    of the size of `hidden`.
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


def fuses(device: Device, dtype: torch.dtype) -> bool:
    """Whether the kernel runs on a device; if it should but cannot be compiled, the log says so once.

    Raises `torch.OutOfMemoryError` if the card is full.
    """
    return device.has_triton and (not device.computes or _compiles(device.torch_device, dtype))


@cache
def _compiles(place: torch.device, dtype: torch.dtype) -> bool:
    try:
        one = torch.ones(1, 1, 1, device=place)
        torch.ops.acestep.snake_(one.to(dtype), one, one)
    # Triton has no common class for the ways in which it and the system's compiler can fail.
    except Exception as error:
        if ran_out(error):
            raise torch.OutOfMemoryError(str(error)) from None
        if is_card_fault(error):
            raise
        problem = f"{type(error).__name__}: {first_line(error)}"
        _LOG.warning("decoding takes longer than it could, because Triton compiled no kernel: %s", problem)
        return False
    return True


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


def _launch(result: Tensor, hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
    # Triton is not everywhere, and takes a while to import.
    from acestep.dit.snake_kernel import launch

    with torch.cuda.device(hidden.device):
        launch(result, hidden, alpha, inverse_beta)
    return result


def _new_on_cuda(hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
    return _launch(torch.empty_like(hidden), hidden, alpha, inverse_beta)


def _in_place_on_cuda(hidden: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
    return _launch(hidden, hidden, alpha, inverse_beta)


def _new_on_meta(hidden: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(hidden)


def _in_place_on_meta(hidden: Tensor, *_: Tensor) -> Tensor:
    return hidden


_OPERATORS.impl("snake", _new_on_cuda, "CUDA")
_OPERATORS.impl("snake_", _in_place_on_cuda, "CUDA")
_OPERATORS.impl("snake", _new_on_meta, "Meta")
_OPERATORS.impl("snake_", _in_place_on_meta, "Meta")
