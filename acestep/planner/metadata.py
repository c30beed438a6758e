"""What is known of a song besides its words: tempo, key, length, language, and a caption."""

import re

import msgspec
import yaml

from acestep.models.tokenizer import encodable
from acestep.planner.fields import (
    BPMS,
    DURATIONS_S,
    KEYSCALES,
    LANGUAGES,
    LONGEST_PLAN_S,
    TIMESIGNATURES,
    UNKNOWN_LANGUAGE,
    Field,
)
from acestep.request import Request

_KEYSCALE = re.compile(r"([A-G])\s*(#|b|♯|♭)?\s*(m|M|maj|min|major|minor)?", re.IGNORECASE)
_NUMERIC = frozenset({Field.BPM.value, Field.DURATION.value, Field.TIMESIGNATURE.value})
_BARS = {"2/4": "2", "3/4": "3", "4/4": "4", "6/8": "6"}


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metadata of a song as the language model knows it; a field that is 0 or empty is not known.

    Keys, time signatures and languages are brought into the form of training: "Am" becomes "A minor", "4/4" becomes
    "4", "pt-BR" becomes "pt". Raises `ValueError` naming the field and what it may be.
    """

    bpm: int = 0
    caption: str = ""
    duration_s: int = 0
    keyscale: str = ""
    language: str = ""
    timesignature: str = ""

    def __post_init__(self) -> None:
        if self.bpm and self.bpm not in BPMS:
            raise ValueError(f"bpm must be {BPMS[0]} to {BPMS[-1]}, or 0 for any, got {self.bpm}")
        if self.duration_s and self.duration_s not in DURATIONS_S:
            raise ValueError(
                f"duration_s must be {DURATIONS_S[0]} to {DURATIONS_S[-1]} whole seconds, or 0 for any,"
                f" got {self.duration_s}"
            )
        msgspec.structs.force_setattr(self, "keyscale", _keyscale(self.keyscale.strip()))
        msgspec.structs.force_setattr(self, "language", _language(self.language.strip()))
        msgspec.structs.force_setattr(self, "timesignature", _timesignature(self.timesignature.strip()))

    def written(self, field: Field) -> str:
        """A field's value as the model writes it; "" where it is not known."""
        value = self.duration_s if field is Field.DURATION else getattr(self, field)
        return str(value) if value else ""

    @property
    def known(self) -> frozenset[Field]:
        """The fields that have a value."""
        return frozenset(field for field in Field if self.written(field))


def wishes(request: Request) -> Metadata:
    """What a request fixes of the metadata; raises `ValueError` for a key, language or time signature there is not.

    The caption is no part of it: it is the text that a model may reword. What is longer than any plan, and yet to be
    cut, is planned as the longest.
    """
    return Metadata(
        bpm=request.bpm,
        duration_s=min(int(request.duration_s), LONGEST_PLAN_S),
        keyscale=request.keyscale,
        language="" if request.language.strip().lower() == UNKNOWN_LANGUAGE else request.language,
        timesignature=request.timesignature,
    )


def cot_yaml(metadata: Metadata) -> str:
    """The known metadata as the thinking of training held it: PyYAML's habits of folding and quoting included."""
    if not metadata.known:
        return ""
    values: dict[str, int | str] = {field.value: metadata.written(field) for field in Field if field in metadata.known}
    for numeric in _NUMERIC & values.keys():
        values[numeric] = int(values[numeric])
    if metadata.caption:
        values[Field.CAPTION.value] = encodable(metadata.caption)
    return str(yaml.dump(values, allow_unicode=True, sort_keys=True)).strip()


def _keyscale(text: str) -> str:
    if not text or text in KEYSCALES:
        return text
    match = _KEYSCALE.fullmatch(text)
    if match is None:
        raise ValueError(
            "keyscale must be a note from A to G, with # or b where it has one, and major or minor,"
            f" such as 'F# minor', got {text!r}"
        )
    note, accidental, mode = (match[1].upper(), (match[2] or "").lower(), match[3] or "")
    minor = mode == "m" or mode.lower().startswith("min")
    return f"{note}{accidental} {'minor' if minor else 'major'}"


def _timesignature(text: str) -> str:
    shortened = _BARS.get(text, text)
    if shortened and shortened not in TIMESIGNATURES:
        raise ValueError(f"timesignature must be {', '.join([*TIMESIGNATURES, *_BARS])}, got {text!r}")
    return shortened


def _language(text: str) -> str:
    shortened = re.split("[-_]", text.lower())[0]
    if text and shortened not in LANGUAGES:
        raise ValueError(f"language must be one of {' '.join(LANGUAGES)}, got {text!r}")
    return shortened


NOTHING_KNOWN = Metadata()
