"""Names that users type for a model or a knob, published and short, with their values."""

from collections.abc import Callable
from typing import Any

from acestep.checkpoints.catalog import CheckpointKind, find
from acestep.errors import UsageError
from acestep.knobs import KNOBS, NONE_NAMES, WEIGHT_FORMATS

AUDIO_FORMATS = ("flac", "wav", "wav32", "mp3", "opus")
"""The file formats of songs."""


def parse_knob(name: str, text: str) -> Any:
    """The value of a knob, from our own name or from the published one; None for ``none`` where it may be none."""
    knob = KNOBS[name]
    if knob.optional and text.strip().casefold() in NONE_NAMES:
        return None
    wanted = {text.strip().casefold(), (_short_name(text) or text).strip().casefold()}
    for value in knob.values:
        if value is not None and str(value).casefold() in wanted:
            return value
    raise UsageError(f"{knob.noun} must be one of {', '.join(knob.choices)}, got {text!r}")


def parser_of(name: str) -> Callable[[str], Any]:
    """Return the parser of a knob's values."""
    return lambda text: parse_knob(name, text)


def _short_name(text: str) -> str | None:
    """Our name for what has a published one: a weight format, a DiT model or a language model; else None."""
    for value, weights in WEIGHT_FORMATS.items():
        if text.strip().lower() == weights.published:
            return value
    checkpoint = find(text)
    if checkpoint is None:
        return None
    return checkpoint.variant or (checkpoint.short if checkpoint.kind is CheckpointKind.LM else None)
