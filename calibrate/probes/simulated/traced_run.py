"""A request as it was traced, and which of its ways to denoise is the one under a cap.

Where blocks are streamed, denoising asks for the free bytes and tries to take what the passes of a step need to go
together. What happens before is the same both ways, so a replay of one tells under each cap which way is taken.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from acestep.limits.workspace import SEGMENT_GRAIN
from acestep.request import DecodePath
from acestep.result import Result
from acestep.stage import Stage
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.decoding import Attempt, DecodeLadder
from calibrate.probes.simulated.played import Played
from calibrate.probes.simulated.trace import ALLOWANCE, ASK, StageUsage, Trace, stage_usage, stages

NO_ROOM: Final = 0
"""The free bytes with which a run takes the least memory."""


class TracedRun:
    """One request: its allocations up to decoding, the decode attempts after that, and its result.

    Of thinking it includes only what remains afterwards.
    """

    def __init__(self, before: Played, ladder: DecodeLadder, result: Result) -> None:
        self.before = before
        self.ladder = ladder
        self.songs_per_pass = result.songs_per_pass
        self.warnings = result.warnings
        self._usage: dict[tuple[DecodePath, int], tuple[StageUsage, ...]] = {}

    def usage_of(self, attempt: Attempt) -> tuple[StageUsage, ...]:
        """Return what the stages held in an attempt, independent of the cap."""
        key = (attempt.path, attempt.tile)
        if key not in self._usage:
            self._usage[key] = stage_usage(self.ladder.played(*key).trace, uncounted=(ALLOWANCE,))
        return self._usage[key]


class TracedRuns:
    """One request under any cap: `traced(free_bytes)` is the run that is told so many free bytes before decoding."""

    def __init__(self, traced: Callable[[int], TracedRun]) -> None:
        self._traced = traced
        self._roomy = traced(NO_CAP)
        self._tight: TracedRun | None = None
        self._tried_at = _trial(self._roomy.before.trace)

    @property
    def least(self) -> TracedRun:
        """The run that takes the least memory."""
        if self._tried_at is None:
            return self._roomy
        if self._tight is None:
            self._tight = self._traced(NO_ROOM)
        return self._tight

    def under(self, cap_bytes: int) -> TracedRun:
        """Return the run as it is made under a cap."""
        if self._tried_at is None:
            return self._roomy
        before = self._roomy.before
        outcome = before.under(cap_bytes)
        if outcome.refusal is not None and outcome.refusal.event <= self._tried_at:
            return self.least
        wanted = before.trace.sizes[self._tried_at]
        return self._roomy if wanted <= cap_bytes - outcome.asked[-1] else self.least

    def smallest_cap(self) -> int:
        """Return the smallest cap from which on every cap fits without decoding on the CPU."""
        least = self.least.ladder.smallest_cap()
        if self._tried_at is None:
            return least
        # From `cap` on the passes can go together; below it they still do under the caps of a narrow band.
        cap = self._roomy.ladder.smallest_cap()
        while cap > least and (run := self.under(cap - SEGMENT_GRAIN)) is self._roomy:
            if not any(attempt.outcome.fits for attempt in run.ladder.attempts(cap - SEGMENT_GRAIN)):
                return cap
            cap -= SEGMENT_GRAIN
        return least


def _trial(trace: Trace) -> int | None:
    """Return the event at which denoising tries to take what it needs more; None where it does not ask before."""
    for stage in stages(trace):
        if stage.name == Stage.DENOISE:
            asked = np.flatnonzero(np.array(trace.sizes[stage.start : stage.stop], dtype=np.int64) == ASK)
            return stage.start + int(asked[0]) + 1 if len(asked) else None
    return None
