"""Why a measurement file cannot be read: the flaw, and where it is."""

from enum import StrEnum
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError


class Flaw(StrEnum):
    """The reasons why a measurement cannot be read."""

    TEXT = "text"
    VERSION = "version"
    UNKNOWN = "unknown"
    SHAPE = "shape"
    BRACKET = "bracket"
    DIGEST = "digest"


class FlawedError(InvalidInputError):
    """A measurement that cannot be read: its flaw, the field, and a message."""

    def __init__(self, path: Path, flaw: Flaw, field: str, said: str, *, place: str | None = None) -> None:
        super().__init__(path, f"{said} - at `{place}`" if place else said)
        self.flaw = flaw
        self.field = field
        self.said = said


class BracketError(ValueError):
    """A certificate that its own probes do not prove."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


def flawed(path: Path, error: msgspec.ValidationError) -> FlawedError:
    """Return the error for a document that is not a measurement."""
    if isinstance(error.__cause__, BracketError):
        return FlawedError(path, Flaw.BRACKET, error.__cause__.field, str(error.__cause__))
    # For all other errors the library gives only a sentence with a place at its end.
    said, _, place = str(error).partition(" - at `")
    place = place.removesuffix("`")
    flaw = Flaw.UNKNOWN if "unknown field" in said else Flaw.SHAPE
    return FlawedError(path, flaw, place or "$", said, place=place or None)
