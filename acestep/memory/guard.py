"""The VRAM guard: how much memory a request will need, and so how many of its songs to make at once. Pure.

The coefficients come from the tier table, fitted over simulated runs (`calibrate/memory_model.py`). All are in bytes;
their names start with the weights' format and the offload mode: ``int8.cpu+dit.denoise`` is the fixed part of a stage,
``int8.cpu+dit.denoise.rows`` goes with a feature, ``int8.cpu+dit.rest`` is what stays on the device between stages.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

import msgspec

from acestep.knobs import Knobs

STAGES: Final = ("encode", "denoise", "decode")

FEATURES: Final = ("song_frames", "frames", "songs", "rows", "tokens")
"""What denoising grows with, each with a coefficient in bytes; its fixed part depends on the offload mode."""

COEFFICIENTS: Final = (
    "rest",
    "encode",
    "encode.lyrics",
    "denoise",
    *(f"denoise.{name}" for name in FEATURES),
    "decode",
)
"""What is known of each way to run."""

FEWEST_LYRICS: Final = 300
"""Lyric tokens up to which the text encoder decides what encoding needs, and not the lyrics."""

ROWS: Final = 2_048
"""Most rows that pass through a DiT block's projections at once (`acestep.models.blocks.CHUNK_ROWS`, a test)."""

FRAMES_PER_TOKEN: Final = 2
"""Latent frames of one DiT token (the transformers' `patch_size`)."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the memory of a pass: songs at once, latent frames of each, tokens of lyrics and of the prompt."""

    songs: int
    frames: int
    lyric_tokens: int
    text_tokens: int

    def features(self) -> tuple[float, ...]:
        """The values of `FEATURES`."""
        return (
            self.songs * self.frames,
            self.frames,
            self.songs,
            rows_at_once(self.songs, -(-self.frames // FRAMES_PER_TOKEN)),
            self.lyric_tokens + self.text_tokens + 1,
        )


def rows_at_once(songs: int, tokens: int) -> int:
    """Rows of the largest piece that `acestep.models.blocks.pieces` cuts `songs` of that many tokens into."""
    if tokens <= ROWS:
        return min(songs, ROWS // tokens) * tokens
    return -(-tokens // -(-tokens // ROWS))


def knobs_key(knobs: Knobs) -> str:
    """What the coefficients of a way to run are named after."""
    return f"{knobs.quantization or 'none'}.{knobs.offload}"


def predict(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> dict[str, int]:
    """Bytes of the smallest cap of each stage and of the whole run (``"total"``); empty where `model` is silent."""
    if not _covers(model, knobs):
        return {}
    key = knobs_key(knobs)
    lyrics = max(0, demand.lyric_tokens - FEWEST_LYRICS)
    growth = (model[f"{key}.denoise.{name}"] * value for name, value in zip(FEATURES, demand.features(), strict=True))
    needs = {
        "encode": int(model[f"{key}.encode"] + lyrics * model[f"{key}.encode.lyrics"]),
        "denoise": int(model[f"{key}.denoise"] + sum(growth)),
        "decode": int(model[f"{key}.decode"]),
    }
    return needs | {"total": max(needs.values())}


def songs_at_once(model: Mapping[str, float], knobs: Knobs, demand: Demand, free_bytes: int) -> int:
    """Songs of a request to make in one pass, at least one, with `free_bytes` free while the pipeline rests.

    The passes are of even size: three and three rather than five and one. All of them where `model` is silent.
    """
    if not _covers(model, knobs):
        return demand.songs
    room = free_bytes + model[f"{knobs_key(knobs)}.rest"]

    def need(songs: int) -> int:
        return predict(model, knobs, msgspec.structs.replace(demand, songs=songs))["denoise"]

    if need(demand.songs) <= room:
        return demand.songs
    most = max(1, bisect_right(range(1, demand.songs + 1), room, key=need))
    passes = -(-demand.songs // most)
    return -(-demand.songs // passes)


def _covers(model: Mapping[str, float], knobs: Knobs) -> bool:
    """Whether every coefficient of a way to run is known; a table of another release may name them otherwise."""
    key = knobs_key(knobs)
    return all(f"{key}.{name}" in model for name in COEFFICIENTS)
