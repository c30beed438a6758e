"""The VRAM guard: how much memory a request will need, and so how many of its songs to make at once. Pure.

The coefficients come from the tier table, found in simulated runs (`calibrate/probes/simulated/memory_model.py`). All
are in bytes; their names start with the weights' format and the offload mode: ``int8.cpu+dit.denoise.fixed`` is what
denoising needs beside what `acestep.memory.workspace` computes, ``int8.cpu+dit.rest`` is what stays on the device
between stages.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

import msgspec

from acestep.checkpoints.catalog import architecture_of
from acestep.knobs import WEIGHT_ONLY, Knobs
from acestep.limits.capabilities import MATRIX_WORKSPACE
from acestep.memory.workspace import Steps
from acestep.stage import Stage
from acestep.units import ceil_div

GUARDED_STAGES: Final = (Stage.ENCODE_AUDIO, Stage.ENCODE, Stage.DENOISE, Stage.DECODE)

COEFFICIENTS: Final = ("rest", Stage.ENCODE, f"{Stage.ENCODE}.lyrics", f"{Stage.DENOISE}.fixed", Stage.DECODE)
"""What is known of each way to run."""

OF_AUDIO: Final = (Stage.ENCODE_AUDIO, f"{Stage.ENCODE_AUDIO}.frames")
"""What is known besides, and needed for requests that bring audio."""

FEWEST_LYRICS: Final = 300
"""Lyric tokens up to which the text encoder decides what encoding needs, and not the lyrics."""

ITEMSIZE: Final = 2
"""Bytes of a number in bfloat16 and float16, in which the coefficients were found."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the memory of a pass: songs at once, latent frames of each, tokens of lyrics and of the prompt.

    `with_audio`: the request brings audio or codes along. `weak_cover`: each step takes a second pass, for a condition
    that asks for no cover. `contexts` are held for the whole request: one, or one for each song with codes of its own.
    `grouped_attention`: attention on the card takes keys and values of fewer heads as they are. `matrix_workspace`:
    bytes that its matrix library keeps. `itemsize`: bytes of the numbers in which it computes.
    """

    songs: int
    frames: int
    lyric_tokens: int
    text_tokens: int
    with_audio: bool = False
    weak_cover: bool = False
    contexts: int = 1
    grouped_attention: bool = True
    matrix_workspace: int = MATRIX_WORKSPACE
    itemsize: int = ITEMSIZE

    @property
    def tokens(self) -> int:
        """Tokens of the condition: lyrics, one of timbre, and the prompt."""
        return self.lyric_tokens + self.text_tokens + 1

    @property
    def width(self) -> int:
        """How many times as large weights and activations are as where the coefficients were found."""
        return self.itemsize // ITEMSIZE


def growth(knobs: Knobs, demand: Demand) -> int:
    """Bytes of denoising that depend on the request: what the steps ask for, and what stays through them."""
    architecture = architecture_of(knobs.variant)
    steps = Steps(
        architecture=architecture,
        songs=demand.songs,
        frames=demand.frames,
        condition_tokens=demand.tokens,
        condition_width=architecture.encoder_width,
        itemsize=demand.itemsize,
        grouped=demand.grouped_attention,
        unpacks=knobs.quantization in WEIGHT_ONLY,
        weak_cover=demand.weak_cover,
        guided=not knobs.variant.is_turbo,
        contexts=demand.contexts,
        matrix_workspace=demand.matrix_workspace,
    )
    return steps.room_bytes + steps.beside_bytes


def knobs_key(knobs: Knobs) -> str:
    """What the coefficients of a way to run are named after."""
    return f"{knobs.quantization or 'none'}.{knobs.offload}"


def predict(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> dict[str, int]:
    """Bytes of the smallest cap of each stage and of the whole run (``"total"``); empty where `model` is silent."""
    if not _covers(model, knobs, demand):
        return {}
    key = knobs_key(knobs)
    lyrics = max(0, demand.lyric_tokens - FEWEST_LYRICS)
    if demand.weak_cover:
        # A second condition, of which a token takes less than one of lyrics does on its way through their encoder.
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
    found = {stage: kept + int(demand.width * needed) for stage, needed in around.items()}
    found[Stage.DENOISE] = _denoise(model, knobs, demand)
    return {stage: found[stage] for stage in GUARDED_STAGES if stage in found} | {"total": max(found.values())}


def songs_at_once(model: Mapping[str, float], knobs: Knobs, demand: Demand, free_bytes: int) -> int:
    """Songs of a request to make in one pass, at least one, with `free_bytes` free while the pipeline rests.

    The passes are of even size: three and three rather than five and one. All of them where `model` is silent.
    """
    if not _covers(model, knobs, demand):
        return demand.songs
    usable = free_bytes + demand.width * model[f"{knobs_key(knobs)}.rest"]

    def need(songs: int) -> int:
        return _denoise(model, knobs, msgspec.structs.replace(demand, songs=songs))

    if need(demand.songs) <= usable:
        return demand.songs
    most = max(1, bisect_right(range(1, demand.songs + 1), usable, key=need))
    passes = ceil_div(demand.songs, most)
    return ceil_div(demand.songs, passes)


def _denoise(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> int:
    return int(demand.width * model[f"{knobs_key(knobs)}.denoise.fixed"]) + growth(knobs, demand)


def _covers(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> bool:
    """Whether every coefficient of a way to run is known; a table of another release may name them otherwise."""
    key, needed = knobs_key(knobs), COEFFICIENTS + OF_AUDIO if demand.with_audio else COEFFICIENTS
    return all(f"{key}.{name}" in model for name in needed)
