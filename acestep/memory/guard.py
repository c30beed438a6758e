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

STAGES: Final = ("encode_audio", "encode", "denoise", "decode")

FEATURES: Final = (
    "song_frames",
    "frames",
    "songs",
    "rows",
    "rows_over_15_percent",
    "rows_over_40_percent",
    "rows_up_to_2048",
    "tokens",
    "weak_frames",
    "weak_tokens",
    "own_frames",
)
"""What denoising grows with, each with a coefficient in bytes; its fixed part depends on the offload mode.

The largest piece counts for more where it is a large share of all rows: there its temporaries make the peak, and in
longer passes it is attention over all rows. Up to `ROWS` rows there is one piece, and nothing beside it for the whole.
"""

COEFFICIENTS: Final = (
    "rest",
    "encode",
    "encode.lyrics",
    "denoise",
    *(f"denoise.{name}" for name in FEATURES),
    "decode",
)
"""What is known of each way to run."""

OF_AUDIO: Final = ("encode_audio", "encode_audio.frames")
"""What is known besides, and needed for requests that bring audio."""

FEWEST_LYRICS: Final = 300
"""Lyric tokens up to which the text encoder decides what encoding needs, and not the lyrics."""

ROWS: Final = 2_048
"""Most rows that pass through a DiT block's projections at once (`acestep.models.blocks.CHUNK_ROWS`, a test)."""

FRAMES_PER_TOKEN: Final = 2
"""Latent frames of one DiT token (the transformers' `patch_size`)."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the memory of a pass: songs at once, latent frames of each, tokens of lyrics and of the prompt.

    `with_audio`: the request brings audio or codes along. `weak_cover`: each step takes a second pass, for a condition
    that asks for no cover. `contexts` are held for the whole request: one, or one for each song with codes of its own.
    """

    songs: int
    frames: int
    lyric_tokens: int
    text_tokens: int
    with_audio: bool = False
    weak_cover: bool = False
    contexts: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of the condition: lyrics, one of timbre, and the prompt."""
        return self.lyric_tokens + self.text_tokens + 1

    def features(self) -> tuple[float, ...]:
        """The values of `FEATURES`."""
        tokens = -(-self.frames // FRAMES_PER_TOKEN)
        rows, all_rows, song_frames = rows_at_once(self.songs, tokens), self.songs * tokens, self.songs * self.frames
        return (
            song_frames,
            self.frames,
            self.songs,
            rows,
            max(0.0, rows - 0.15 * all_rows),
            max(0.0, rows - 0.40 * all_rows),
            min(ROWS, all_rows),
            self.tokens,
            song_frames if self.weak_cover else 0,
            self.tokens if self.weak_cover else 0,
            (self.contexts - 1) * self.frames,
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
    if not _covers(model, knobs, demand):
        return {}
    key = knobs_key(knobs)
    lyrics = max(0, demand.lyric_tokens - FEWEST_LYRICS)
    if demand.weak_cover:
        # A second condition, of which a token takes less than one of lyrics does on its way through their encoder.
        lyrics += demand.tokens
    needs = {
        "encode": int(model[f"{key}.encode"] + lyrics * model[f"{key}.encode.lyrics"]),
        "denoise": _denoise(model, key, demand),
        "decode": int(model[f"{key}.decode"]),
    }
    if demand.with_audio:
        growth = demand.frames * demand.contexts * model[f"{key}.encode_audio.frames"]
        needs = {"encode_audio": int(model[f"{key}.encode_audio"] + growth)} | needs
    return needs | {"total": max(needs.values())}


def songs_at_once(model: Mapping[str, float], knobs: Knobs, demand: Demand, free_bytes: int) -> int:
    """Songs of a request to make in one pass, at least one, with `free_bytes` free while the pipeline rests.

    The passes are of even size: three and three rather than five and one. All of them where `model` is silent.
    """
    if not _covers(model, knobs, demand):
        return demand.songs
    key = knobs_key(knobs)
    room = free_bytes + model[f"{key}.rest"]

    def need(songs: int) -> int:
        return _denoise(model, key, msgspec.structs.replace(demand, songs=songs))

    if need(demand.songs) <= room:
        return demand.songs
    most = max(1, bisect_right(range(1, demand.songs + 1), room, key=need))
    passes = -(-demand.songs // most)
    return -(-demand.songs // passes)


def _denoise(model: Mapping[str, float], key: str, demand: Demand) -> int:
    growth = (model[f"{key}.denoise.{name}"] * value for name, value in zip(FEATURES, demand.features(), strict=True))
    return int(model[f"{key}.denoise"] + sum(growth))


def _covers(model: Mapping[str, float], knobs: Knobs, demand: Demand) -> bool:
    """Whether every coefficient of a way to run is known; a table of another release may name them otherwise."""
    key, needed = knobs_key(knobs), COEFFICIENTS + OF_AUDIO if demand.with_audio else COEFFICIENTS
    return all(f"{key}.{name}" in model for name in needed)
