"""Room in main memory for weights: the one place that adds up what is to be loaded and refuses what does not fit."""

from pathlib import Path

import msgspec
import torch

from acestep.checkpoints.footprint import footprint, lm_footprint
from acestep.checkpoints.host_memory import CHOOSE_SMALLER, CHOOSE_SMALLER_LM, require_room
from acestep.knobs import Quantization, Variant


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is to be loaded, as `load` takes it."""

    model: str
    variant: Variant | None
    quantization: Quantization | None = None


class LanguageWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A language model that is to be loaded, as `load_lm` takes it."""

    name: str
    quantization: Quantization | None = None


def require_room_for(
    checkpoints: Path, dtype: torch.dtype, *, music: Weights | None = None, language: LanguageWeights | None = None
) -> None:
    """Raise `HostMemoryError` unless the weights of one or both fit into main memory together."""
    needed, names, instead = 0, list[str](), CHOOSE_SMALLER
    if music is not None:
        needed += footprint(music.model, music.variant, checkpoints, dtype, music.quantization)
        names.append(f"of {music.model}")
    if language is not None:
        needed += lm_footprint(language.name, checkpoints, dtype, language.quantization)
        names.append(f"of the language model {language.name}")
        instead = CHOOSE_SMALLER_LM if music is None else f"{CHOOSE_SMALLER_LM}, or do without with --no-think"
    require_room(needed, f"The weights {' and '.join(names)}", instead)
