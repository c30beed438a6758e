"""Products of a few rows with a large weight on the CPU, in the fastest of three forms.

For a few rows the time is that of reading the weight once, if the matrix library does that. Which form reads it once
depends on the processor, the library, the rows and the weight: on an EPYC with AVX-512, 4 rows of 1,024 numbers take
half as long turned as by `F.linear`, and 4 rows of 3,072 take 1.5 times as long. So all are timed, once for each number
of rows and shape of the weight.

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

FOUR: Final = 4
"""The rows of a piece: the matrix library reads a weight once for up to four columns."""

TIMED_OUTPUTS: Final = 4_096
"""The most rows of a weight with which a form is timed: a head has 64,000, and is no different."""

_ROUNDS: Final = 3

_CLEARLY: Final = 1.1
"""A form must be this many times as fast as `F.linear` to be taken instead."""


def turned(rows: Tensor, weight: Tensor) -> Tensor:
    """Return `F.linear(rows, weight)`, computed as the weight times the rows; sums may be rounded differently."""
    return torch.mm(weight, rows.t()).t().contiguous()


def by_fours(rows: Tensor, weight: Tensor) -> Tensor:
    """Return `F.linear(rows, weight)`, computed as `turned` in pieces of four rows."""
    return torch.cat([torch.mm(weight, piece.t()).t() for piece in torch.split(rows, FOUR)])


def is_plain(weight: Any) -> bool:
    """Return whether a weight is not quantised; quantised ones are of other classes, with products of their own."""
    return type(weight) is nn.Parameter


class Products:
    """The products of a model's steps on a device: those of the library, or on the CPU the fastest form."""

    def __init__(self, device: Device, clock: Callable[[], float] = perf_counter) -> None:
        self._chosen: dict[tuple[int, torch.Size], Product] = {}
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
        return (self._fastest(rows, weight) if few else F.linear)(rows, weight)

    def _fastest(self, rows: Tensor, weight: Tensor) -> Product:
        case = len(rows), weight.shape
        if case not in self._chosen:
            forms: list[Product] = [turned, by_fours] if len(rows) > FOUR else [turned]
            part = weight[:TIMED_OUTPUTS]
            usual = self._seconds(F.linear, rows, part)
            fastest, form = min(((self._seconds(form, rows, part), form) for form in forms), key=lambda timed: timed[0])
            self._chosen[case] = form if _CLEARLY * fastest < usual else F.linear
            _LOG.info(
                "%d rows times %s: F.linear %.2f ms, %s %.2f ms",
                len(rows),
                list(weight.shape),
                1e3 * usual,
                getattr(form, "__name__", form),
                1e3 * fastest,
            )
        return self._chosen[case]

    def _seconds(self, form: Product, rows: Tensor, weight: Tensor) -> float:
        """Return the seconds of the quickest of several calls."""
        taken = []
        for _ in range(_ROUNDS):
            started = self._clock()
            form(rows, weight)
            taken.append(self._clock() - started)
        return min(taken)
