"""How much of a campaign is left, and how long that takes: estimates for people, and nothing else rests on them."""

import time
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 1.0
"""Seconds for which an estimate is good enough; a new one goes through all that is still to be decided."""


class Pace:
    """Counts answers; `remaining` says how many more there will be at least."""

    def __init__(self, remaining: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._remaining = remaining
        self._clock = clock
        self._started = self._told = clock()
        self._done = 0
        self._left = -1

    def step(self) -> str:
        """Call after each answer; how far the campaign is, for the head of a line."""
        self._done += 1
        now = self._clock()
        if self._left <= 0 or now - self._told >= PATIENCE_S:
            self._left, self._told = self._remaining(), now
        else:
            self._left -= 1
        seconds = (now - self._started) / self._done * self._left
        return f"[{self._done} of about {self._done + self._left}{_told(seconds)}]"


def _told(seconds: float) -> str:
    if seconds < 1:
        return ""
    return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
