"""What a campaign asks, and what it keeps of an answer. Both are values: they are sent, written down and looked up."""

import msgspec

from acestep.knobs import Knobs, Variant
from calibrate.record.measurement import RecordedProbe
from calibrate.workload import Workload


class _Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of what is asked and of what is answered; each says what it is."""


class Question(_Value, frozen=True):
    """One run under a cap, the `attempt`-th at this point from 0 on. A `full` one takes all the steps there are."""

    knobs: Knobs
    workload: Workload
    cap_bytes: int
    attempt: int = 0
    full: bool = False


class Fit(_Value, frozen=True):
    """What the VRAM guard is to predict a variant's memory with."""

    variant: Variant


class Probed(_Value, frozen=True):
    """How a run ended, and of one that gave no answer why."""

    task: Question
    probe: RecordedProbe
    problem: str = ""


class Fitted(_Value, frozen=True):
    """The coefficients of a variant; none from a prober that fits none."""

    task: Fit
    coefficients: dict[str, float]


ProbeTask = Question | Fit

JournalEntry = Probed | Fitted
"""A task and its answer."""
