"""The tasks and answers of a campaign, as values: they are sent, stored and looked up."""

import msgspec

from acestep.knobs import Knobs, Variant
from calibrate.record.measurement import RecordedProbe
from calibrate.workload import Workload


class _Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of tasks and answers; the JSON contains the class name."""


class Question(_Value, frozen=True):
    """One run under a cap, the `attempt`-th at this point, counted from 0. A `full` one takes all steps."""

    knobs: Knobs
    workload: Workload
    cap_bytes: int
    attempt: int = 0
    full: bool = False


class Fit(_Value, frozen=True):
    """Fit the VRAM guard's memory model of a variant."""

    variant: Variant


class Probed(_Value, frozen=True):
    """The result of a run, and the reason if it gave no answer."""

    task: Question
    probe: RecordedProbe
    problem: str | None = None


class Fitted(_Value, frozen=True):
    """The coefficients of a variant; None from a prober that fits none."""

    task: Fit
    coefficients: dict[str, float] | None


ProbeTask = Question | Fit

JournalEntry = Probed | Fitted
"""A task and its answer."""
