"""Estimates of the remaining probes and time of a campaign, only for display."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from calibrate.campaign.cost import Cost
from calibrate.executors.questions import ProbeTask

PATIENCE_S: Final = 1.0
"""Seconds for which an estimate is reused, because a new one evaluates all open decisions."""


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers a campaign has, how many are missing at least, and the seconds that these will take."""

    done: int
    left: int
    left_s: float

    def __str__(self) -> str:
        return f"[{self.done} of about {self.done + self.left}{_told(self.left_s)}]"


class Pace:
    """Counts answers and the time they took; `remaining` returns the tasks that are likely still to come.

    `left_s` are the seconds that were estimated after the last answer, 0 before there is an estimate.
    """

    def __init__(
        self,
        remaining: Callable[[], Sequence[ProbeTask]],
        cost: Cost,
        known: Iterable[ProbeTask] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remaining = remaining
        self._cost = cost
        self._clock = clock
        self._started = self._told = clock()
        self._done = 0
        self._spent = 0.0
        self._left: list[ProbeTask] = []
        self.left_s = 0.0
        for task in known:
            cost.of(task)

    def begin(self) -> str:
        """Return the beginning of the line before the first answer."""
        self._left = list(self._remaining())
        return f"[0 of about {len(self._left)}]"

    def step(self, task: ProbeTask) -> Paced:
        """Call after each answer; return the campaign's progress."""
        self._done += 1
        cost, now = self._cost.of(task), self._clock()
        if self._done == 1:
            # What the first answer waited for, such as imports, does not come again.
            self._started = now
        else:
            self._spent += cost
        if task in self._left:
            self._left.remove(task)
        if not self._left or now - self._told >= PATIENCE_S:
            self._left, self._told = list(self._remaining()), now
        self.left_s = (now - self._started) / self._spent * self._cost.ahead(self._left) if self._spent else 0.0
        return Paced(done=self._done, left=len(self._left), left_s=self.left_s)


def _told(seconds: float) -> str:
    if seconds < 1:
        return ""
    return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
