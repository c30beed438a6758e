"""Products of a few rows with a large weight on the CPU, in the faster of two forms.

For a few rows the time is that of reading the weight once, if the matrix library does that. Which form reads it once
depends on the processor, the library and the rows: on a Xeon with AMX, `F.linear` takes 1.5 times as long as the other
form for 8 rows, and half as long for 2; on another processor it was the other way round. So both are timed, once for
each number of rows.

Only in float32: sums are rounded differently, and in bfloat16 that is enough for another token, so that the same seed
could give another song after the next start.
"""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.devices.base import Device

_LOG = logging.getLogger(__name__)

Product = Callable[[Tensor, Tensor], Tensor]
"""Returns `rows` [rows, in] times `weight` [out, in] transposed, [rows, out]."""

FEW_ROWS: Final = 16
"""The most rows for which the form is chosen: eight guided songs."""

LARGE: Final = 512
"""The smallest height and width of a weight for which the form is chosen; below, calling takes as long as reading."""

_ROUNDS: Final = 5

_CLEARLY: Final = 1.1
"""A form must be this many times as fast as `F.linear` to be taken instead."""


def turned(rows: Tensor, weight: Tensor) -> Tensor:
    """Return `F.linear(rows, weight)`, computed as the weight times the rows; sums may be rounded differently."""
    return torch.mm(weight, rows.t()).t().contiguous()


def is_plain(weight: Any) -> bool:
    """Return whether a weight is not quantised; quantised ones are of other classes, with products of their own."""
    return type(weight) is nn.Parameter


class Products:
    """The products of a model's steps on a device: those of the library, or on the CPU the faster form."""

    def __init__(self, device: Device, clock: Callable[[], float] = perf_counter) -> None:
        self._chosen: dict[int, Product] = {}
        self._chooses = device.shares_host_memory
        self._clock = clock

    def layer(self, linear: nn.Module, rows: Tensor) -> Tensor:
        """Return what `linear`, a linear layer without bias, makes of `rows` [rows, in]."""
        weight: Any = linear.weight
        if is_plain(weight):
            return self.product(rows, weight)
        result: Tensor = linear(rows)
        return result

    def product(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Return `rows` [rows, in] times the transpose of `weight` [out, in]."""
        chooses = self._chooses and rows.dtype is torch.float32
        few = chooses and 1 < len(rows) <= FEW_ROWS and min(weight.shape) >= LARGE
        return (self._faster(rows, weight) if few else F.linear)(rows, weight)

    def _faster(self, rows: Tensor, weight: Tensor) -> Product:
        count = len(rows)
        if count not in self._chosen:
            usual, other = (
                min(self._seconds(form, rows, weight) for _ in range(_ROUNDS)) for form in (F.linear, turned)
            )
            self._chosen[count] = turned if _CLEARLY * other < usual else F.linear
            _LOG.info("products of %d rows: F.linear %.1f ms, turned %.1f ms", count, 1e3 * usual, 1e3 * other)
        return self._chosen[count]

    def _seconds(self, form: Product, rows: Tensor, weight: Tensor) -> float:
        started = self._clock()
        form(rows, weight)
        return self._clock() - started
