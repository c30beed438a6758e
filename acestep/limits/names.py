"""What people type for a model or a knob -> the value it stands for; published names and short names alike."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, TypeVar

from acestep.checkpoints.catalog import CheckpointKind, find
from acestep.errors import UsageError
from acestep.knobs import Attention, Backend, Offload, Quantization, Variant
from acestep.tiers import LM_MODELS

AUDIO_FORMATS = ("flac", "wav", "mp3")
"""What songs can be written as."""

E = TypeVar("E", bound=StrEnum)

NONE_NAMES = ("none", "null")
"""How null is written where only text can be."""

_PUBLISHED = {"int8_weight_only": "int8", "fp8_weight_only": "fp8", "w8a8_dynamic": "w8a8"}


def variant(text: str) -> Variant:
    """A DiT variant by short name or published ID."""
    checkpoint = find(text)
    if checkpoint is None or checkpoint.variant is None:
        raise _unknown("variant", Variant, text)
    return checkpoint.variant


def parse_language_model(text: str) -> str | None:
    """A language model's short name, from it or from the published ID; None for ``none``."""
    if _means_none(text):
        return None
    checkpoint = find(text)
    if checkpoint is None or checkpoint.kind is not CheckpointKind.LM:
        raise _unknown("language model", (*LM_MODELS, NONE_NAMES[0]), text)
    return checkpoint.short


def quantization(text: str) -> Quantization | None:
    """A weight format by our name or by the published one (`int8_weight_only`); None for ``none``."""
    if _means_none(text):
        return None
    name = text.strip().lower()
    try:
        return Quantization(_PUBLISHED.get(name, name))
    except ValueError:
        raise _unknown("quantization", (*Quantization, NONE_NAMES[0]), text) from None


def offload(text: str) -> Offload:
    """An offload mode; ``none`` is one of them, not null."""
    return _member(Offload, "offload", text)


def backend(text: str) -> Backend:
    """A language-model backend."""
    return _member(Backend, "backend", text)


def attention(text: str) -> Attention:
    """A choice of attention kernels."""
    return _member(Attention, "attention", text)


PARSERS: dict[str, Callable[[str], Any]] = {
    "variant": variant,
    "lm": parse_language_model,
    "lm_quantization": quantization,
    "backend": backend,
    "offload": offload,
    "quantization": quantization,
    "attention": attention,
}
"""The parser of each field of `acestep.limits.plan.Overrides` that is written as text."""


def _means_none(text: str) -> bool:
    return text.strip().casefold() in NONE_NAMES


def _member(kind: type[E], what: str, text: str) -> E:
    try:
        return kind(text.strip().lower())
    except ValueError:
        raise _unknown(what, kind, text) from None


def _unknown(what: str, names: Iterable[str], text: str) -> UsageError:
    return UsageError(f"{what} must be one of {', '.join(names)}, got {text!r}")
