"""Why a measurement file cannot be read: the flaw, and where it is."""

from enum import StrEnum
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError


class Flaw(StrEnum):
    """Why a measurement cannot be read."""

    TEXT = "text"
    VERSION = "version"
    UNKNOWN = "unknown"
    SHAPE = "shape"
    BRACKET = "bracket"
    DIGEST = "digest"


class FlawedError(InvalidInputError):
    """A measurement that cannot be read: which flaw it has, at which field, and what is said of it."""

    def __init__(self, path: Path, flaw: Flaw, field: str, said: str, *, place: str = "") -> None:
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
    """What a document that is no measurement is refused with."""
    if isinstance(error.__cause__, BracketError):
        return FlawedError(path, Flaw.BRACKET, error.__cause__.field, str(error.__cause__))
    # Of everything else the library tells no more than a sentence with a place at its end.
    said, _, place = str(error).partition(" - at `")
    place = place.removesuffix("`")
    return FlawedError(path, Flaw.UNKNOWN if "unknown field" in said else Flaw.SHAPE, place or "$", said, place=place)
