"""The fields of a song's metadata and their allowed values, in the order used in training.

Every entry point converts a user's text to the form used in training with these functions. Each returns "" for a blank
text, and raises `ValueError` with the allowed values, and the closest of them, for an unknown text.
"""

import re
from collections.abc import Collection
from enum import StrEnum

from acestep.automatic import AUTOMATIC


class RequestField(StrEnum):
    """The lines of the thinking, in their order."""

    BPM = "bpm"
    CAPTION = "caption"
    DURATION = "duration"
    KEYSCALE = "keyscale"
    LANGUAGE = "language"
    TIMESIGNATURE = "timesignature"


BPMS = range(30, 301)

SHORTEST_PLAN_S = 10
LONGEST_PLAN_S = 600
"""The lengths in seconds that the model was trained to plan."""

DURATIONS_S = range(1, LONGEST_PLAN_S + 1)
"""The lengths in seconds that a user may give."""

KEYSCALES = tuple(
    f"{note}{accidental} {mode}"
    for note in "ABCDEFG"
    for accidental in ("", "#", "b", "♯", "♭")
    for mode in ("major", "minor")
)

TIMESIGNATURES = ("2", "3", "4", "6")

_LANGUAGES = """
ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro ru
sa sk sr sv sw ta te th tl tr uk ur vi yue zh
"""
UNKNOWN_LANGUAGE = "unknown"
LYRIC_LANGUAGES = (*_LANGUAGES.split(), UNKNOWN_LANGUAGE)

TRACKS = (
    *("woodwinds", "brass", "fx", "synth", "strings", "percussion"),
    *("keyboard", "guitar", "bass", "drums", "backing_vocals", "vocals"),
)
"""The tracks of a song that a model was trained to extract and to add (`TRACK_NAMES` of the original code)."""

_KEYSCALE = re.compile(r"([A-G])(?:[\s-]*(#|b|♯|♭|sharp|flat))?(?:[\s_:-]*(m|maj|min|major|minor))?", re.IGNORECASE)
_ACCIDENTALS = {"sharp": "#", "flat": "b"}
_OPEN = frozenset({"", "n/a", "none", "auto", "automatic", str(AUTOMATIC), UNKNOWN_LANGUAGE})
"""The text for a field that the user leaves to the model, in any case."""

_BARS = {"2/4": "2", "3/4": "3", "4/4": "4", "6/8": "6"}


_USUAL_NAMES = {
    "english": "en",
    "german": "de",
    "deutsch": "de",
    "french": "fr",
    "spanish": "es",
    "italian": "it",
    "portuguese": "pt",
    "russian": "ru",
    "japanese": "ja",
    "jp": "ja",
    "korean": "ko",
    "kr": "ko",
    "chinese": "zh",
    "mandarin": "zh",
    "cn": "zh",
    "cantonese": "yue",
    "dutch": "nl",
    "polish": "pl",
    "piano": "keyboard",
    "organ": "keyboard",
    "violin": "strings",
    "cello": "strings",
    "flute": "woodwinds",
    "saxophone": "woodwinds",
    "trumpet": "brass",
    "trombone": "brass",
    "voice": "vocals",
    "lead_vocals": "vocals",
    "singer": "vocals",
    "choir": "backing_vocals",
    "keys": "keyboard",
    "bass_guitar": "bass",
    "lead_vocal": "vocals",
    "effects": "fx",
    "synthesizer": "synth",
    "beat": "drums",
}
"""Common names of languages and instruments, and their names here."""


def keyscale_of(text: str) -> str:
    """Return a key in the form used in training: "Am" becomes "A minor", "c MAJOR" becomes "C major"."""
    written = text.strip()
    if written.lower() in _OPEN:
        return ""
    if written in KEYSCALES:
        return written
    match = _KEYSCALE.fullmatch(written)
    if match is None:
        raise ValueError(
            "keyscale must be a note from A to G, with # or b where it has one, and major or minor,"
            f" such as 'F# minor', got {written!r}"
        )
    note, accidental, mode = (match[1].upper(), (match[2] or "").lower(), match[3] or "")
    accidental = _ACCIDENTALS.get(accidental, accidental)
    minor = mode == "m" or mode.lower().startswith("min")
    return f"{note}{accidental} {'minor' if minor else 'major'}"


def timesignature_of(given: str | int) -> str:
    """Return a time signature, text or a number, as the beats of a bar: "4/4" and 4 become "4"."""
    written = re.sub(r"\s", "", str(given))
    shortened = "" if written.lower() in _OPEN else _BARS.get(written, written)
    if shortened and shortened not in TIMESIGNATURES:
        raise ValueError(f"timesignature must be {', '.join([*TIMESIGNATURES, *_BARS])}, got {written!r}")
    return shortened


def language_of(text: str) -> str:
    """Return the code of a lyrics language: "pt-BR" becomes "pt"."""
    written = text.strip()
    if written.lower() in _OPEN:
        return UNKNOWN_LANGUAGE if written else ""
    shortened = re.split("[-_]", written.lower())[0]
    if shortened not in LYRIC_LANGUAGES:
        raise ValueError(_told("language", LYRIC_LANGUAGES, shortened, written))
    return shortened


def track_of(text: str) -> str:
    """Return a track's name: "Backing Vocals" becomes "backing_vocals"."""
    written = text.strip()
    name = re.sub(r"[\s_-]+", "_", written.lower())
    if name and name not in TRACKS:
        raise ValueError(_told("track", TRACKS, name, written))
    return name


def track_names(text: str) -> tuple[str, ...]:
    """Return the names in a text with commas between them, still as the user wrote them; none for an empty text."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _told(field: str, names: Collection[str], meant: str, written: str) -> str:
    from difflib import get_close_matches

    close = _USUAL_NAMES.get(meant) or next(iter(get_close_matches(meant, list(names), n=1)), "")
    suggestion = f"; did you mean {close!r}?" if close in names else ""
    return f"{field} must be one of {' '.join(names)}, got {written!r}{suggestion}"
