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
