"""Checks that weights fit into main memory before they are loaded; the system would end the process otherwise."""

import gc
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from acestep.checkpoints.footprint import footprint, lm_footprint
from acestep.errors import HostMemoryError
from acestep.hardware.host import HostMemory, host_memory
from acestep.knobs import Quantization, Variant
from acestep.units import GIB, gib

BESIDE_BYTES = GIB
"""Memory of a run besides its weights: 1.05 GiB for 10 s of music on the CPU, most of it to decode the audio."""

FEWER_ADAPTERS = "use fewer adapters with --lora"
CHOOSE_SMALLER = "choose a smaller model with --model"
CHOOSE_SMALLER_LM = "choose a smaller language model with --lm"
"""The advice for a user whose main memory is too small for the weights."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is to be loaded, as `load` takes it.

    `fused_values` of its weights are changed by adapters. `packed`: its linear layers are packed for the CPU.
    """

    model: str
    variant: Variant | None
    quantization: Quantization | None = None
    fused_values: int = 0
    packed: bool = False


class LanguageWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A language model that is to be loaded, as `load_lm` takes it. `packed`: so are its linear layers."""

    name: str
    quantization: Quantization | None = None
    packed: bool = False


def require_room_for(
    checkpoints: Path,
    dtype: torch.dtype,
    *,
    music: Weights | None = None,
    apart_values: int = 0,
    language: LanguageWeights | None = None,
) -> None:
    """Raise `HostMemoryError` unless all of these weights fit into main memory together.

    `apart_values` are those of adapters that are to be attached beside the weights.
    """
    needed, names, instead = apart_values * dtype.itemsize, list[str](), CHOOSE_SMALLER
    if music is not None:
        needed += footprint(
            music.model,
            music.variant,
            checkpoints,
            dtype,
            music.quantization,
            fused_values=music.fused_values,
            packed=music.packed,
        )
        names.append(f"of {music.model}")
    if apart_values:
        names.append("of the adapters")
        instead = CHOOSE_SMALLER if music is not None else FEWER_ADAPTERS
    if language is not None:
        needed += lm_footprint(language.name, checkpoints, dtype, language.quantization, packed=language.packed)
        names.append(f"of the language model {language.name}")
        instead = CHOOSE_SMALLER_LM if music is None else f"{CHOOSE_SMALLER_LM}, or do without with --no-think"
    require_room(needed, f"The weights {' and '.join(names)}", instead)


def require_room(needed: int, what: str, instead: str, look: Callable[[], HostMemory] | None = None) -> None:
    """Raise `HostMemoryError` unless `needed` bytes of weights fit into the free main memory.

    The sentence begins with `what` and ends with `instead`, the user's alternative. 0 bytes always fit.
    """
    look = look or host_memory
    if needed == 0 or _fits(needed, look()):
        return
    # Python may not have collected the last model yet.
    gc.collect()
    memory = look()
    if not _fits(needed, memory):
        raise HostMemoryError(_sentence(needed, what, instead, memory))


def _fits(needed: int, memory: HostMemory) -> bool:
    return needed + BESIDE_BYTES <= memory.room_bytes


def _sentence(needed: int, what: str, instead: str, memory: HostMemory) -> str:
    limit = f", the limit of {memory.limited_by}" if memory.limited_by else ""
    swap = f" and {gib(memory.swap_bytes)} of swap" if memory.swap_bytes else ""
    where = "this container or session" if memory.limited_by else "this machine"
    # Closing programs does not help if more is needed than the machine has.
    too_small = needed + BESIDE_BYTES > memory.total_bytes + memory.swap_bytes
    first = f"give {where} more memory" if too_small else "close other programs"
    return (
        f"{what} need {gib(needed)} of main memory and a run {gib(BESIDE_BYTES)} besides, but"
        f" {gib(memory.available_bytes)}{swap} are free of {gib(memory.total_bytes)}{limit}; {first}, or {instead}"
    )
