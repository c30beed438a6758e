"""How a probe ended."""

from enum import StrEnum


class Verdict(StrEnum):
    """The six ways a probe can end; only `fits` counts as a fit."""

    FITS = "fits"
    DEGRADED = "degraded"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    TAINTED = "tainted"

    @property
    def answers(self) -> bool:
        """Whether it says anything about the fit; an interrupted or disturbed run does not."""
        return self not in (Verdict.TIMEOUT, Verdict.CRASHED, Verdict.TAINTED)
