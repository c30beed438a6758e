"""The fields of a song's metadata and their allowed values, in the order used in training.

Every entry point converts a user's text to the form used in training with these functions. Each returns "" for a blank
text, and raises `ValueError` with the allowed values, and the closest of them, for an unknown text.
"""

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum

from acestep.automatic import AUTOMATIC
from acestep.language_names import ISO_CODES, USUAL_NAMES


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


_INSTRUMENTS = {
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
"""Common names of instruments, and the tracks they belong to."""


def keyscale_of(text: str) -> str:
    """Return a key in the form used in training: "Am" becomes "A minor", "c MAJOR" becomes "C major"."""
    written = _plain(text)
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
    written = re.sub(r"\s", "", _plain(str(given)))
    shortened = "" if written.lower() in _OPEN else _BARS.get(written, written)
    if shortened and shortened not in TIMESIGNATURES:
        raise ValueError(f"timesignature must be {', '.join([*TIMESIGNATURES, *_BARS])}, got {written!r}")
    return shortened


def language_of(text: str) -> str:
    """Return the code of a lyrics language: "pt-BR" becomes "pt", "eng" becomes "en"."""
    written = _plain(text)
    if written.lower() in (*_OPEN, "und", "mul"):
        return UNKNOWN_LANGUAGE if written else ""
    first, *others = re.split("[-_]", written.lower())
    # Cantonese may be written as a kind of Chinese (RFC 5646, 2.2.2).
    shortened = "yue" if first == "zh" and others[:1] == ["yue"] else ISO_CODES.get(first, first)
    if shortened not in LYRIC_LANGUAGES:
        raise ValueError(
            _told("language", LYRIC_LANGUAGES, {code: code for code in LYRIC_LANGUAGES} | USUAL_NAMES, written)
        )
    return shortened


def track_of(text: str) -> str:
    """Return a track's name: "Backing Vocals" becomes "backing_vocals"."""
    written = _plain(text)
    name = re.sub(r"[\s_-]+", "_", written.lower())
    if name and name not in TRACKS:
        raise ValueError(_told("track", TRACKS, {name: name for name in TRACKS} | _INSTRUMENTS, written))
    return name


def track_names(text: str) -> tuple[str, ...]:
    """Return the names in a text with commas between them, still as the user wrote them; none for an empty text."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _plain(text: str) -> str:
    """A text without spaces around it, and with usual characters for wide ones, as keyboards of East Asia write."""
    return unicodedata.normalize("NFKC", text).replace("\N{FRACTION SLASH}", "/").strip()


def _told(field: str, names: tuple[str, ...], known: Mapping[str, str], written: str) -> str:
    """What is wrong with a name; `known` are words that people use, with what they mean."""
    from difflib import get_close_matches

    words = re.sub(r"[\s_-]+", "_", written.lower())
    alike = get_close_matches(words, [word for word in known if len(word) > 3], n=1, cutoff=0.75)
    close = next((known[word] for word in (words, *alike, *re.findall(r"[^\W_]+", words)) if word in known), "")
    suggestion = f"; did you mean {close!r}?" if close else ""
    return f"{field} must be one of {' '.join(names)}, got {written!r}{suggestion}"
