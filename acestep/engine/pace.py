"""Watches how long steps take: a step that is suddenly slow is how a full card shows where the driver moves memory.

Windows does not refuse memory that a card has not got. It moves a part of it to main memory, and the run goes on, many
times slower.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Final

from acestep.devices.base import Device
from acestep.units import Progress

JUMP: Final = 5
"""A step this many times as long as the earlier ones is told."""

LEAST_STEPS: Final = 3
"""Steps before the first that is compared: the first ones load kernels, or compile them."""

LEAST_SECONDS: Final = 1.0
"""A shorter step is not told: other programs delay it, and it costs no one much time."""


class StepPace:
    """The steps of one pass on a device; `slow` is a sentence about the first step that was suddenly slow, or None."""

    def __init__(self, device: Device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.slow: str | None = None
        self._device = device
        self._clock = clock
        self._seconds: list[float] = []
        self._last: float | None = None

    def watching(self, progress: Progress) -> Progress:
        """Return the same progress, which also takes the time of each step."""

        def watched(stage: str, done: int, total: int) -> None:
            # The call returns before the card has computed the step.
            self._device.synchronize()
            self._step(done, total)
            progress(stage, done, total)

        return watched

    def _step(self, done: int, total: int) -> None:
        now = self._clock()
        if self._last is not None:
            seconds = now - self._last
            usual = median(self._seconds) if len(self._seconds) >= LEAST_STEPS else seconds
            if self.slow is None and seconds >= LEAST_SECONDS and seconds >= JUMP * usual:
                self.slow = (
                    f"Step {done} of {total} took {seconds:.1f} s, and the steps before it {usual:.1f} s: the card is"
                    " probably full, and its driver moved a part of its memory to main memory, as Windows does. Close"
                    " other programs that use the card, or choose more offload with --offload."
                )
            self._seconds.append(seconds)
        self._last = now
