"""The time at which each part of a stage is done: a progress callback with a clock."""

import time
from collections.abc import Sequence
from itertools import pairwise

from acestep.devices.base import Device
from acestep.stage import Stage, StageReport


class StepClock:
    """Records when each denoising step is done. It waits for the device, because a card only queues the work.

    A pass that ran out of memory and was tried again is not counted, as in the stage's own time.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._under_way: list[float] = []
        self._steps: list[float] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        """A stage begins, or one part more of it is done."""
        if stage != Stage.DENOISE:
            return
        self._device.synchronize()
        if not done:
            self._under_way.clear()
        self._under_way.append(time.perf_counter())
        if done == total:
            self._steps += [after - before for before, after in pairwise(self._under_way)]

    def step_seconds(self, stages: Sequence[StageReport]) -> tuple[float, ...]:
        """The time of each step; the first has all that is not another's: noise, and weights moved in and out."""
        whole = sum(stage.seconds for stage in stages if stage.name == Stage.DENOISE)
        return (whole - sum(self._steps[1:]), *self._steps[1:]) if self._steps else ()
