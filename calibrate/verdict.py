"""How a probe ended."""

from enum import StrEnum


class Verdict(StrEnum):
    """Six ways a probe ends; only `fits` counts as a fit."""

    FITS = "fits"
    DEGRADED = "degraded"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    TAINTED = "tainted"

    @property
    def answers(self) -> bool:
        """Whether it says anything about the fit; a run that was cut short or disturbed does not."""
        return self not in (Verdict.TIMEOUT, Verdict.CRASHED, Verdict.TAINTED)
