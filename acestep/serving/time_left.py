"""Estimates how long the rest of a stage takes, from how long its finished parts took."""

import time
from collections.abc import Callable


class TimeLeft:
    """The pace of the stage that a run is in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._done = 0
        self._began = 0.0
        self._at_done = 0
        self._left_s: float | None = None

    def after(self, stage: str, done: int, total: int) -> float | None:
        """Return the seconds left after `done` of `total` parts of a stage; None until one part has been timed.

        A stage that begins again, with fewer parts done than before, is timed anew.
        """
        now = self._clock()
        if stage != self._stage or done < self._done:
            self._stage, self._began, self._at_done, self._left_s = stage, now, done, None
        elif done > self._done:
            self._left_s = (now - self._began) / (done - self._at_done) * (total - done)
        self._done = done
        return self._left_s
