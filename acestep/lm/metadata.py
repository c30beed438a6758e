"""What is known of a song besides its words: tempo, key, length, language, and a caption."""

import msgspec
import yaml

from acestep.automatic import leave_open
from acestep.checkpoints.tokenizer import encodable
from acestep.fields import (
    BPMS,
    DURATIONS_S,
    LONGEST_PLAN_S,
    UNKNOWN_LANGUAGE,
    RequestField,
    keyscale_of,
    language_of,
    timesignature_of,
)
from acestep.request import Request

_NUMERIC = frozenset({RequestField.BPM.value, RequestField.DURATION.value, RequestField.TIMESIGNATURE.value})


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
        leave_open(self, "bpm", "duration_s")
        if self.bpm and self.bpm not in BPMS:
            raise ValueError(f"bpm must be {BPMS[0]} to {BPMS[-1]}, or 0 for any, got {self.bpm}")
        if self.duration_s and self.duration_s not in DURATIONS_S:
            raise ValueError(
                f"duration_s must be {DURATIONS_S[0]} to {DURATIONS_S[-1]} whole seconds, or 0 for any,"
                f" got {self.duration_s}"
            )
        msgspec.structs.force_setattr(self, "keyscale", keyscale_of(self.keyscale))
        msgspec.structs.force_setattr(self, "language", language_of(self.language))
        msgspec.structs.force_setattr(self, "timesignature", timesignature_of(self.timesignature))

    def written(self, field: RequestField) -> str:
        """A field's value as the model writes it; "" where it is not known."""
        value = self.duration_s if field is RequestField.DURATION else getattr(self, field)
        return str(value) if value else ""

    @property
    def known(self) -> frozenset[RequestField]:
        """The fields that have a value."""
        return frozenset(field for field in RequestField if self.written(field))


def wishes(request: Request) -> Metadata:
    """What a request fixes of the metadata.

    The caption is no part of it: it is the text that a model may reword. What is longer than any plan, and yet to be
    cut, is planned as the longest.
    """
    return Metadata(
        bpm=request.bpm,
        duration_s=min(int(request.duration_s), LONGEST_PLAN_S),
        keyscale=request.keyscale,
        language="" if request.language == UNKNOWN_LANGUAGE else request.language,
        timesignature=request.timesignature,
    )


def cot_yaml(metadata: Metadata) -> str:
    """The known metadata as the thinking of training held it: PyYAML's habits of folding and quoting included."""
    if not metadata.known:
        return ""
    values: dict[str, int | str] = {
        field.value: metadata.written(field) for field in RequestField if field in metadata.known
    }
    for numeric in _NUMERIC & values.keys():
        values[numeric] = int(values[numeric])
    if metadata.caption:
        values[RequestField.CAPTION.value] = encodable(metadata.caption)
    return str(yaml.dump(values, allow_unicode=True, sort_keys=True)).strip()


NO_METADATA = Metadata()
