"""Products of a few rows with a large weight: INT8 weights by one kernel, and on the CPU the fastest of three forms.

For a few rows the time is that of reading the weight once, if the matrix library does that. Which form reads it once
on the CPU depends on the processor, the library, the rows and the weight: on an EPYC with AVX-512, 4 rows of 1,024
numbers take half as long turned as by `F.linear`, and 4 rows of 3,072 take 1.5 times as long. So all are timed for each
number of rows and shape of the weight, in the first steps. Each layer has a weight of its own, which comes from memory
as in all later steps; in a cache, where it is after a first product, another form is the fastest.

Weights that are packed (`acestep.lm.packed`) need none of these forms: here are the products with all others.

Only in float32: sums are rounded differently, and in bfloat16 that is enough for another token, so that the same seed
could give another song after the next start.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter, thread_time
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.devices.base import Device
from acestep.lm.int8_product import int8_product, is_int8, reads_int8

_LOG = logging.getLogger(__name__)

Product = Callable[[Tensor, Tensor], Tensor]
"""Returns `rows` [rows, in] times `weight` [out, in] transposed, [rows, out]."""

_Clock = Callable[[], float]

FEW_ROWS: Final = 16
"""The most rows for which the form is chosen, or INT8 is read as it is: eight guided songs."""

LARGE: Final = 512
"""The smallest height and width of a weight for which the form is chosen; below, calling takes as long as reading."""

FOUR: Final = 4
"""The rows of a piece: the matrix library reads a weight once for up to four columns."""

_ROUNDS: Final = 3

_CLEARLY: Final = 1.1
"""A form must be this many times as fast as `F.linear` to be taken instead."""

_FINE: Final = 2e-5
"""A clock must tick at least every so many seconds: the quickest products take several times as long."""


def finer(computing: _Clock, passing: _Clock) -> _Clock:
    """Return `computing`, or if it ticks too rarely `passing`.

    Windows counts the seconds of a thread every 15.6 ms, but Python says of that clock that its resolution is 100 ns
    (`time.get_clock_info`). So ticks are awaited, more than one: an interruption makes one long.
    """
    return computing if any(_ticks_soon(computing, passing) for _ in range(_ROUNDS)) else passing


def _ticks_soon(computing: _Clock, passing: _Clock) -> bool:
    started, at = passing(), computing()
    while (now := computing()) == at:
        if passing() - started > _FINE:
            return False
    return now - at <= _FINE


@cache
def thread_clock() -> _Clock:
    """Return a clock of the seconds that this thread has computed, or if the system has no fine one, of all seconds."""
    return finer(thread_time, perf_counter)


def turned(rows: Tensor, weight: Tensor) -> Tensor:
    """Return `F.linear(rows, weight)`, computed as the weight times the rows; sums may be rounded differently."""
    return torch.mm(weight, rows.t()).t().contiguous()


def by_fours(rows: Tensor, weight: Tensor) -> Tensor:
    """Return `F.linear(rows, weight)`, computed as `turned` in pieces of four rows."""
    return torch.cat([torch.mm(weight, piece.t()).t() for piece in torch.split(rows, FOUR)])


def is_plain(weight: Any) -> bool:
    """Return whether a weight is not quantised; quantised ones are of other classes, with products of their own."""
    return type(weight) is nn.Parameter


class _Trial:
    """Some forms that are taken in turns, and the seconds of the quickest call of each."""

    def __init__(self, forms: Sequence[Product]) -> None:
        self._forms = forms
        self._seconds: list[list[float]] = [[] for _ in forms]
        self._calls = 0

    @property
    def is_over(self) -> bool:
        return self._calls == _ROUNDS * len(self._forms)

    def call(self, rows: Tensor, weight: Tensor, clock: _Clock) -> Tensor:
        """Return the product in the form whose turn it is."""
        turn = self._calls % len(self._forms)
        started = clock()
        result = self._forms[turn](rows, weight)
        self._seconds[turn].append(clock() - started)
        self._calls += 1
        return result

    def fastest(self) -> Product:
        """Return the fastest form, but the first one unless another is clearly faster."""
        usual, *others = map(min, self._seconds)
        quickest = min(others)
        return self._forms[1 + others.index(quickest)] if _CLEARLY * quickest < usual else self._forms[0]


class Products:
    """The products of a model's steps on a device: those of the library, or on the CPU the fastest form.

    Where the device has Triton, one kernel multiplies few rows with INT8 weights.

    They are kept as long as the model, so that only its first steps mix forms, and later songs are all rounded alike.
    `clock` should count the seconds that this thread has computed, because the machine may do other work meanwhile; by
    default it is `thread_clock()`.
    """

    def __init__(self, device: Device, clock: _Clock | None = None) -> None:
        self._chosen: dict[tuple[int, torch.Size], Product] = {}
        self._trials: dict[tuple[int, torch.Size], _Trial] = {}
        self._chooses = device.shares_host_memory
        self._has_triton = device.has_triton
        self._clock = clock or thread_clock()

    def layer(self, linear: nn.Module, rows: Tensor) -> Tensor:
        """Return what `linear`, a linear layer without bias, makes of `rows` [rows, in]."""
        weight: Any = linear.weight
        if is_plain(weight):
            return self.product(rows, weight)
        if self._by_kernel(weight, len(rows)):
            return int8_product(rows, weight)
        result: Tensor = linear(rows)
        return result

    def can_record(self, weight: Tensor, rows: int) -> bool:
        """Return whether a device can record a product of so many rows with this weight; not where torchao computes it.

        torchao unpacks the whole weight, and a recording would keep the memory for that. With W8A8 it unpacks nothing,
        but reads values of the card on the host (`safe_int_mm`), which no recording can repeat.

        It is known after one product, because a kernel is compiled when it is first used.
        """
        return is_plain(weight) or (self._by_kernel(weight, rows) and reads_int8(weight))

    def _by_kernel(self, weight: Tensor, rows: int) -> bool:
        return self._has_triton and rows <= FEW_ROWS and is_int8(weight)

    def product(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Return `rows` [rows, in] times the transpose of `weight` [out, in]."""
        chooses = self._chooses and rows.dtype is torch.float32
        few = chooses and 1 < len(rows) <= FEW_ROWS and min(weight.shape) >= LARGE
        return self._in_fastest_form(rows, weight) if few else F.linear(rows, weight)

    def _in_fastest_form(self, rows: Tensor, weight: Tensor) -> Tensor:
        case = len(rows), weight.shape
        if case in self._chosen:
            return self._chosen[case](rows, weight)
        if case not in self._trials:
            self._trials[case] = _Trial([F.linear, turned, by_fours] if len(rows) > FOUR else [F.linear, turned])
        trial = self._trials[case]
        result = trial.call(rows, weight, self._clock)
        if trial.is_over:
            self._chosen[case] = trial.fastest()
            _LOG.info("%d rows times %s: %s", len(rows), list(weight.shape), self._chosen[case])
        return result
