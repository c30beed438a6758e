"""The messages between a prober and its child: one JSON value per line, on a separate socket.

The child sends `Ready` or `Refused` once for its `Setup`, and one `RunOutcome` for every `Order`. `Alive` in between
means that it is still at work.
"""

from typing import Annotated, Self

import msgspec

from acestep.knobs import KNOBS, Knobs
from acestep.request import DecodePath
from acestep.stage import StageReport
from acestep.units import MIB
from calibrate.probes.base import Bytes
from calibrate.verdict import Verdict
from calibrate.workload import Workload

LONGEST_LINE = MIB
"""Longest line in bytes; a longer one is not a message."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages; the JSON contains the class name."""


class Setup(_Message, frozen=True):
    """The model that a child must load: `model` is what `acestep.checkpoints.load` takes."""

    knobs: Knobs
    model: str


def setup_for(knobs: Knobs, model: str) -> Setup:
    """What the probes of these knobs need loaded; equal for knobs that place or run the same weights otherwise."""
    loading = {name: getattr(knobs, name) for name, knob in KNOBS.items() if knob.loads}
    return Setup(knobs=Knobs(**loading), model=model)


def loading_order(knobs: Knobs) -> str:
    """A key that sorts probes so that those of one setup come one after another."""
    return repr((setup_for(knobs, ""), knobs))


class Order(_Message, frozen=True):
    """One probe. `full` means a certificate: it takes all the steps of the variant instead of the workload's."""

    number: int
    knobs: Knobs
    workload: Workload
    cap_bytes: Annotated[int, msgspec.Meta(gt=0)]
    full: bool = False


class Ready(_Message, frozen=True):
    """The weights are loaded and the card is open. `allocator` are the allocator's settings from the environment."""

    allocator: str


class Refused(_Message, frozen=True):
    """The child cannot measure anything, whatever the order."""

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
    """The outcome of the run of an order; after an out-of-memory error the last stage is the one it happened in.

    `outside_bytes` were used outside the allocator, by any process, before the run. After the run has freed everything,
    `resting_bytes` are still reserved, and `grown_bytes` more are used outside.
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


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Return the verdict of a run in the child that raised no error."""

    songs_per_pass: int
    decode_path: DecodePath
    warnings: tuple[str, ...] = ()


Said = Ready | Refused | Alive | RunOutcome
"""The messages that a child of the pipeline may send."""


class LeaveFree(_Message, frozen=True):
    """To the ballast: fill the card until this many bytes are free."""

    free_bytes: Bytes


class Filled(_Message, frozen=True):
    """From the ballast: what it holds and what is free now."""

    held_bytes: Bytes
    free_bytes: Bytes


def line_of(message: object) -> bytes:
    """Encode a message as a line."""
    return msgspec.json.encode(message) + b"\n"
