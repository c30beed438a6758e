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
"""A shorter step is not told: other programs can delay it, and the loss of time is small."""


class StepPace:
    """The steps of one run, pass by pass."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._slow: str | None = None

    def watching(self, progress: Progress, device: Device) -> Progress:
        """Return the same progress for one pass, which also takes the time of each step.

        Memory that the processor shares is not watched: no driver moves it.
        """
        if self._slow is not None or device.shares_host_memory:
            return progress
        before: list[float] = []
        last: list[float] = []

        def watched(stage: str, done: int, total: int) -> None:
            # The call returns before the card has computed the step.
            device.synchronize()
            now = self._clock()
            if last:
                seconds = now - last.pop()
                self._look_at(seconds, before, done, total)
                before.append(seconds)
            last.append(now)
            progress(stage, done, total)

        return watched

    def told(self) -> tuple[str, ...]:
        """Return a sentence about the first step that was suddenly slow, or nothing."""
        return () if self._slow is None else (self._slow,)

    def _look_at(self, seconds: float, before: list[float], done: int, total: int) -> None:
        if self._slow is not None or len(before) < LEAST_STEPS or seconds < LEAST_SECONDS:
            return
        usual = median(before)
        if seconds >= JUMP * usual:
            self._slow = (
                f"Step {done} of {total} took {seconds:.1f} s, and the steps before it {usual:.1f} s: the card is"
                " probably full, and its driver moved a part of its memory to main memory, as Windows does. Close other"
                " programs that use the card, or choose more offload with --offload."
            )
