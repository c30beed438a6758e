"""What happens in a fleet, as values: views show them to people, and `--json` prints one a line."""

from collections.abc import Callable

import msgspec


class Update(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=lambda name: name.lower()):
    """Base: something that happened to the campaign of a kind of card."""

    card: str


class Progressed(Update, frozen=True):
    """An answer came: the number of answers so far, and at least how many are missing and for how many seconds."""

    done: int
    left: int
    left_s: float


class Told(Update, frozen=True):
    """A sentence about the campaign."""

    message: str


class Cards(Update, frozen=True):
    """How many cards answer and start, and which are excluded or slow, each with the reason."""

    at_work: int
    starting: int
    excluded: dict[str, str]
    slow: dict[str, str]


class Written(Update, frozen=True):
    """The campaign has ended with a measurement file."""

    path: str
    probes: int
    seconds: float


class Failed(Update, frozen=True):
    """The campaign has ended without one; what it found is in its journal."""

    message: str
    exit_code: int


TellUpdate = Callable[[Update], None]
"""Called with every update, in the order in which they happen."""
