"""The VRAM guard: predicts the memory of a request, and so how many of its songs to make in one pass. Pure.

The coefficients come from the tier table, found in simulated runs (`calibrate/probes/simulated/memory_model.py`). All
are in bytes; their names start with the weights' format and the offload mode: ``int8.cpu+dit.denoise.fixed`` is what
denoising needs besides what `acestep.limits.workspace` computes, ``int8.cpu+dit.rest`` is what stays on the device
between stages.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

import msgspec

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.checkpoints.catalog import architecture_of
from acestep.knobs import Knobs, unpacks
from acestep.limits.adapter_bytes import adapter_bytes, resting_adapter_bytes
from acestep.limits.capabilities import MATRIX_WORKSPACE
from acestep.limits.workspace import Steps
from acestep.stage import Stage
from acestep.units import ceil_div

GUARDED_STAGES: Final = (Stage.ENCODE_AUDIO, Stage.ENCODE, Stage.DENOISE, Stage.DECODE)

COEFFICIENTS: Final = ("rest", Stage.ENCODE, f"{Stage.ENCODE}.lyrics", f"{Stage.DENOISE}.fixed", Stage.DECODE)
"""The coefficients of each way to run."""

OF_AUDIO: Final = (Stage.ENCODE_AUDIO, f"{Stage.ENCODE_AUDIO}.frames")
"""Further coefficients, for requests with audio."""

FEWEST_LYRICS: Final = 300
"""Up to this number of lyric tokens the text encoder, and not the lyrics, decides the peak of encoding."""

ITEMSIZE: Final = 2
"""Bytes of a number in bfloat16 and float16; the coefficients were measured in these types."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of a prediction: songs in the pass, latent frames of each, tokens of lyrics and of the prompt.

    `with_audio`: the request brings audio or codes. `weak_cover`: each step takes a second pass, for a condition that
    asks for no cover. `recorded`: the steps use the source audio itself. `contexts` are held for the whole request:
    one, or one for each song with its own codes.
    `grouped_attention`: attention on the card takes grouped queries without expanding keys and values.
    `matrix_workspace`: bytes that its matrix library keeps. `itemsize`: bytes of the numbers in which it computes.
    `adapters`: those that are not part of the weights.
    """

    songs: int
    frames: int
    lyric_tokens: int
    text_tokens: int
    with_audio: bool = False
    weak_cover: bool = False
    recorded: bool = False
    contexts: int = 1
    grouped_attention: bool = True
    matrix_workspace: int = MATRIX_WORKSPACE
    itemsize: int = ITEMSIZE
    adapters: AdapterMemory = NO_ADAPTERS

    @property
    def tokens(self) -> int:
        """Tokens of the condition: the lyrics, one timbre token, and the prompt."""
        return self.lyric_tokens + self.text_tokens + 1

    @property
    def width(self) -> int:
        """Size of weights and activations relative to the run in which the coefficients were found."""
        return self.itemsize // ITEMSIZE


def growth(knobs: Knobs, demand: Demand) -> int:
    """Bytes of denoising that depend on the request: what the steps allocate, and what stays allocated through them."""
    architecture = architecture_of(knobs.variant)
    steps = Steps(
        architecture=architecture,
        songs=demand.songs,
        frames=demand.frames,
        condition_tokens=demand.tokens,
        condition_width=architecture.encoder_width,
        itemsize=demand.itemsize,
        grouped=demand.grouped_attention,
        unpacks=unpacks(knobs.quantization),
        weak_cover=demand.weak_cover,
        guided=not knobs.variant.is_turbo,
        recorded=demand.recorded,
        contexts=demand.contexts,
        matrix_workspace=demand.matrix_workspace,
        adapter_values=demand.adapters.row_values,
    )
    return steps.room_bytes + steps.beside_bytes + adapter_bytes(demand.adapters, knobs.offload, demand.itemsize)


def knobs_key(knobs: Knobs) -> str:
    """The prefix of the coefficients' names for these knobs."""
    return f"{knobs.quantization or 'none'}.{knobs.offload}"


def predict(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> dict[str, int]:
    """Predict the smallest cap in bytes of each stage and of the whole run (``"total"``).

    Empty if `model` lacks the knobs.
    """
    if not _covers(model, knobs, demand):
        return {}
    key = knobs_key(knobs)
    lyrics = max(0, demand.lyric_tokens - FEWEST_LYRICS)
    if demand.weak_cover:
        # A second condition; one of its tokens takes less than a lyrics token does in the lyrics' encoder.
        lyrics += demand.tokens
    around = {
        Stage.ENCODE: model[f"{key}.encode"] + lyrics * model[f"{key}.encode.lyrics"],
        Stage.DECODE: model[f"{key}.decode"],
    }
    if demand.with_audio:
        longer = demand.frames * demand.contexts * model[f"{key}.encode_audio.frames"]
        around[Stage.ENCODE_AUDIO] = model[f"{key}.encode_audio"] + longer
    # The model was found on a card whose matrix library keeps the least.
    kept = demand.matrix_workspace - MATRIX_WORKSPACE
    kept += resting_adapter_bytes(demand.adapters, knobs.offload, demand.itemsize)
    found = {stage: kept + int(demand.width * needed) for stage, needed in around.items()}
    found[Stage.DENOISE] = _denoise(model, knobs, demand)
    return {stage: found[stage] for stage in GUARDED_STAGES if stage in found} | {"total": max(found.values())}


def songs_at_once(model: Mapping[str, float], knobs: Knobs, demand: Demand, free_bytes: int) -> int:
    """Return the number of songs to make in one pass, at least one, with `free_bytes` free in the idle pipeline.

    The passes are of even size: three and three rather than five and one. Without a memory model, all songs in one
    pass.
    """
    if not _covers(model, knobs, demand):
        return demand.songs
    usable = free_bytes + resting_bytes(model, knobs, demand)

    def need(songs: int) -> int:
        return _denoise(model, knobs, msgspec.structs.replace(demand, songs=songs))

    if need(demand.songs) <= usable:
        return demand.songs
    most = max(1, bisect_right(range(1, demand.songs + 1), usable, key=need))
    passes = ceil_div(demand.songs, most)
    return ceil_div(demand.songs, passes)


def resting_bytes(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> int:
    """Return the bytes that stay on the device between stages."""
    weights = demand.width * int(model[f"{knobs_key(knobs)}.rest"])
    return weights + resting_adapter_bytes(demand.adapters, knobs.offload, demand.itemsize)


def _denoise(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> int:
    return int(demand.width * model[f"{knobs_key(knobs)}.denoise.fixed"]) + growth(knobs, demand)


def _covers(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> bool:
    """Return whether all coefficients of these knobs are known.

    A table of another release may name them differently.
    """
    key, needed = knobs_key(knobs), COEFFICIENTS + OF_AUDIO if demand.with_audio else COEFFICIENTS
    return all(f"{key}.{name}" in model for name in needed)
