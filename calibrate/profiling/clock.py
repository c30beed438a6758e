"""When each part of a stage was done: a progress callback with a clock."""

import time
from collections.abc import Sequence
from itertools import pairwise

from acestep.devices.base import Device
from acestep.request import StageReport


class StepClock:
    """Notes when each denoising step is done, which it waits for: without that, a card is only asked to begin it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._done: list[float] = []

    def __call__(self, stage: str, done: int, total: int) -> None:  # noqa: ARG002 as in `Progress`
        """A stage begins, or one part more of it is done."""
        if stage == "denoise" and done:
            self._device.synchronize()
            self._done.append(time.perf_counter())

    def step_seconds(self, stages: Sequence[StageReport]) -> tuple[float, ...]:
        """The time of each step; the first has all that is not another's: noise, and weights moved in and out."""
        between = [after - before for before, after in pairwise(self._done)]
        whole = sum(stage.seconds for stage in stages if stage.name == "denoise")
        return (whole - sum(between), *between) if self._done else ()
