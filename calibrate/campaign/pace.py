"""Estimates of the remaining probes and time of a campaign, only for display."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

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
    """Counts answers; `remaining` returns a lower bound of the missing ones."""

    def __init__(self, remaining: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._remaining = remaining
        self._clock = clock
        self._started = self._told = clock()
        self._done = 0
        self._left = -1

    def step(self) -> Paced:
        """Call after each answer; return the campaign's progress."""
        self._done += 1
        now = self._clock()
        if self._left <= 0 or now - self._told >= PATIENCE_S:
            self._left, self._told = self._remaining(), now
        else:
            self._left -= 1
        return Paced(done=self._done, left=self._left, left_s=(now - self._started) / self._done * self._left)


def _told(seconds: float) -> str:
    if seconds < 1:
        return ""
    return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
