"""The VAE's activation and residual unit with as few tensors alive as their values allow."""

import torch
from torch import Tensor

from acestep.models.libraries import OobleckResidualUnit, Snake1d


def snake_(hidden: Tensor, snake: Snake1d) -> Tensor:
    """``hidden + sin(alpha hidden)^2 / beta`` in the place of `hidden`."""
    return hidden.add_(_bump(hidden, snake))


def residual(hidden: Tensor, unit: OobleckResidualUnit) -> Tensor:
    """A residual unit over `hidden` [1, channels, samples], of which three copies exist at the peak."""
    inner = _bump(hidden, unit.snake1).add_(hidden)
    inner = unit.conv1(inner)
    inner = unit.conv2(snake_(inner, unit.snake2))
    summed: Tensor = inner.add_(hidden)
    return summed


def _bump(hidden: Tensor, snake: Snake1d) -> Tensor:
    """``sin(alpha hidden)^2 / beta``, in one new tensor."""
    bump = (torch.exp(snake.alpha) if snake.logscale else snake.alpha) * hidden
    bump.sin_().pow_(2)
    return bump.mul_(((torch.exp(snake.beta) if snake.logscale else snake.beta) + 1e-9).reciprocal())
