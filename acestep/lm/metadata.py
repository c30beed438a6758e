"""The metadata of a song: tempo, key, length, language, and a caption."""

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
from acestep.typed import take_types

_NUMERIC = frozenset({RequestField.BPM.value, RequestField.DURATION.value, RequestField.TIMESIGNATURE.value})


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metadata of a song as the language model writes it; a field that is 0 or empty is not known.

    Keys, time signatures and languages are converted to the form used in training: "Am" becomes "A minor", "4/4"
    becomes "4", "pt-BR" becomes "pt". Raises `ValueError` naming the field and its allowed values.
    """

    bpm: int = 0
    caption: str = ""
    duration_s: int = 0
    keyscale: str = ""
    language: str = ""
    timesignature: str | int = ""

    def __post_init__(self) -> None:
        take_types(self)
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
        """Return a field's value as the model writes it; "" if it is not known."""
        value = self.duration_s if field is RequestField.DURATION else getattr(self, field)
        return str(value) if value else ""

    @property
    def known(self) -> frozenset[RequestField]:
        """The fields that have a value."""
        return frozenset(field for field in RequestField if self.written(field))


def wishes(request: Request) -> Metadata:
    """Return the metadata that a request fixes.

    The caption is not included, because the model may reword it. A song that is longer than the longest plan, and will
    be shortened, is planned at the longest length.
    """
    return Metadata(
        bpm=request.bpm,
        duration_s=min(int(request.duration_s), LONGEST_PLAN_S),
        keyscale=request.keyscale,
        language="" if request.language == UNKNOWN_LANGUAGE else request.language,
        timesignature=request.timesignature,
    )


def cot_yaml(metadata: Metadata) -> str:
    """Return the known metadata as the YAML text used in training, folded and quoted as PyYAML does."""
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
