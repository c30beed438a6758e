"""What a prober and its child say to each other: one JSON value a line, on a socket of their own.

The child says `Ready` or `Refused` once for its `Setup`, and one `Answer` for every `Order`. `Alive` in between means
that it is still at work.
"""

from typing import Annotated, Self, TypeVar

import msgspec

from acestep.knobs import Knobs
from acestep.request import DecodePath
from acestep.stage import StageReport
from acestep.units import MIB
from calibrate.probes.base import Bytes
from calibrate.verdict import Verdict
from calibrate.workload import Workload

LONGEST_LINE = MIB
"""Bytes; a line that grows beyond this is no message."""

_Kind = TypeVar("_Kind")


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of everything that is said; its JSON names its class."""


class Setup(_Message, frozen=True):
    """What a child is to load: `model` is what `acestep.checkpoints.load` takes."""

    knobs: Knobs
    model: str


def setup_for(knobs: Knobs, model: str) -> Setup:
    """What the probes of these knobs need loaded; equal for knobs that place or run the same weights otherwise."""
    loading = Knobs(
        variant=knobs.variant,
        quantization=knobs.quantization,
        lm=knobs.lm,
        lm_quantization=knobs.lm_quantization,
        backend=knobs.backend,
    )
    return Setup(knobs=loading, model=model)


class Order(_Message, frozen=True):
    """One probe. `full` is a certificate: it takes all the steps of the variant instead of the workload's."""

    number: int
    knobs: Knobs
    workload: Workload
    cap_bytes: Annotated[int, msgspec.Meta(gt=0)]
    full: bool = False


class Ready(_Message, frozen=True):
    """The weights are loaded and the card is open. `allocator` are the settings it was given by the environment."""

    allocator: str


class Refused(_Message, frozen=True):
    """Nothing can be measured with this child, whatever is asked of it."""

    problem: str


class Alive(_Message, frozen=True):
    """A part of a stage is done."""

    stage: str


class StageOnCard(StageReport, frozen=True, kw_only=True):
    """What the allocator counted in one stage, and what was taken on the card outside it when the stage ended."""

    seconds: Annotated[float, msgspec.Meta(ge=0)]
    songs_per_pass: Annotated[int, msgspec.Meta(gt=0)]
    outside_bytes: Bytes


class RunOutcome(_Message, frozen=True):
    """How the run of an order ended; after an out-of-memory error the last stage is the one it happened in.

    `outside_bytes` were taken outside the allocator, by anyone, before the run. When everything it held has been given
    back, `resting_bytes` are still reserved, and `grown_bytes` more are taken outside.
    """

    number: int
    verdict: Verdict
    stages: tuple[StageOnCard, ...]
    songs_per_pass: Annotated[int, msgspec.Meta(gt=0)]
    decode_path: DecodePath
    outside_bytes: Bytes
    resting_bytes: Bytes
    grown_bytes: Bytes
    problem: str
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_no_run(cls, number: int, verdict: Verdict, songs: int, problem: str) -> Self:
        """The verdict of a probe of which nothing was counted."""
        return cls(
            number=number,
            verdict=verdict,
            stages=(),
            songs_per_pass=songs,
            decode_path=DecodePath.GPU,
            outside_bytes=0,
            resting_bytes=0,
            grown_bytes=0,
            problem=problem,
        )


Said = Ready | Refused | Alive | RunOutcome
"""What a child of the pipeline may say."""


class LeaveFree(_Message, frozen=True):
    """To the ballast: fill the card until this many bytes are free."""

    free_bytes: Bytes


class Filled(_Message, frozen=True):
    """From the ballast: what it holds and what is free now."""

    held_bytes: Bytes
    free_bytes: Bytes


def line_of(message: object) -> bytes:
    """A message as it travels."""
    return msgspec.json.encode(message) + b"\n"
