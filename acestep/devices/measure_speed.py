"""Measures the four rates of a device, in a few seconds each."""

import time
from collections.abc import Callable
from typing import Final

import torch

from acestep.devices.base import Device
from acestep.hardware.card import Card
from acestep.hardware.speed import MeasuredSpeed
from acestep.units import MIB

SECONDS_EACH: Final = 2.0
"""How long each rate is measured, after one run that is not counted; the best run counts."""

WIDTH, INNER = 2048, 6144
"""The widths of the transformer's products (`acestep.checkpoints.architecture`)."""

CARD_ROWS, HOST_ROWS = 3000, 128
"""Rows of a product: two latent frames each, of a song of 240 s; a processor needs fewer to reach its rate."""

CARD_BYTES, HOST_BYTES = 512 * MIB, 64 * MIB
"""Bytes of a copy, more than any cache holds."""

LAUNCHES: Final = 500
"""Kernels in one run, so that the wait at its end is a small part of it."""

Clock = Callable[[], float]
"""Returns a time in seconds."""


def measure_speed(device: Device, card: Card, clock: Clock = time.perf_counter) -> MeasuredSpeed:
    """Return the rates of an open device; raises `torch.OutOfMemoryError` where 1.5 GiB of it are not free."""
    began = clock()
    best = _Stopwatch(device, clock)
    return MeasuredSpeed(
        kind=card.kind,
        name=card.name,
        total_bytes=card.total_bytes,
        capability=card.capability,
        dtype=str(device.dtype).removeprefix("torch."),
        products_tflops=_products(device, best) / 1e12,
        copy_gbs=_copies(device, best) / 1e9,
        bus_gbs=None if (rate := _bus(device, best)) is None else rate / 1e9,
        launch_us=_launches(device, best) * 1e6,
        seconds=round(clock() - began, 1),
    )


class _Stopwatch:
    """Returns the shortest time of one run, of as many as end within `SECONDS_EACH`."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self._device = device
        self._clock = clock

    def __call__(self, run: Callable[[], object]) -> float:
        self._once(run)
        until = self._clock() + SECONDS_EACH
        best = self._once(run)
        while self._clock() < until:
            best = min(best, self._once(run))
        # A clock that counts in large steps may show no time at all.
        return max(best, 1e-9)

    def _once(self, run: Callable[[], object]) -> float:
        self._device.synchronize()
        started = self._clock()
        run()
        self._device.synchronize()
        return self._clock() - started


def _products(device: Device, best: _Stopwatch) -> float:
    """Return the operations a second of one attention projection and both products of one feed-forward layer."""
    rows = HOST_ROWS if device.shares_host_memory else CARD_ROWS

    def made(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=device.dtype, device=device.torch_device)

    wide, inner = made(rows, WIDTH), made(rows, INNER)
    weights = made(WIDTH, WIDTH), made(INNER, WIDTH), made(WIDTH, INNER)

    def run() -> None:
        torch.nn.functional.linear(wide, weights[0])
        torch.nn.functional.linear(wide, weights[1])
        torch.nn.functional.linear(inner, weights[2])

    operations = 2 * rows * (WIDTH * WIDTH + 2 * WIDTH * INNER)
    return operations / best(run)


def _copies(device: Device, best: _Stopwatch) -> float:
    """Return the bytes read and written a second in a copy within the device's memory."""
    n_bytes = HOST_BYTES if device.shares_host_memory else CARD_BYTES
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * n_bytes / best(lambda: target.copy_(source))


def _bus(device: Device, best: _Stopwatch) -> float | None:
    """Return the bytes a second from page-locked memory to the device; None without such memory."""
    source = None if device.shares_host_memory else device.pinned(HOST_BYTES)
    if source is None:
        return None
    target = device.reserve(HOST_BYTES, "measurement")
    return HOST_BYTES / best(lambda: target.copy_(source, non_blocking=True))


def _launches(device: Device, best: _Stopwatch) -> float:
    """Return the seconds from one small kernel to the next."""
    small = torch.zeros(1, dtype=device.dtype, device=device.torch_device)

    def run() -> None:
        for _ in range(LAUNCHES):
            small.add_(1)

    return best(run) / LAUNCHES
