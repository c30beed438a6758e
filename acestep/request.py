"""What is asked of the pipeline and what comes back: value objects, checked at birth."""

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 48_000
"""Samples a second of every song; ACE-Step 1.5's VAE was trained at 48 kHz stereo."""

LATENT_HOP = 1_920
"""Samples one latent frame stands for (product of the VAE's strides 2*4*4*6*10), so 25 frames a second."""

MAX_LYRIC_TOKENS = 2_048
MAX_TEXT_TOKENS = 256
"""Longest lyrics and longest DiT text prompt the weights were trained with, in tokens; longer input is cut."""

MIN_DURATION_S = 1.0
MAX_DURATION_S = 600.0
"""The longest song the weights were trained for; no plan promises more."""

MAX_ASKED_S = 3_600.0
"""The longest song a request may name: what is above a plan's limit is cut with a warning, not refused."""

MAX_BATCH = 64
MAX_SEED = 2**32 - 1


class Task(StrEnum):
    """What the DiT is asked to do."""

    TEXT2MUSIC = "text2music"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of the pipeline: `batch` songs of the same caption, song k with seed ``seed + k``.

    `duration_s` is in seconds. `steps` and `guidance_scale` of 0 mean the variant's default.
    Raises `ValueError` naming the field when a value is out of range.
    """

    caption: str
    lyrics: str = ""
    duration_s: float = 60.0
    batch: int = 1
    seed: int = 0
    steps: int = 0
    guidance_scale: float = 0.0
    shift: float = 3.0
    bpm: int = 0
    keyscale: str = ""
    timesignature: str = ""
    language: str = "unknown"
    task: Task = Task.TEXT2MUSIC

    def __post_init__(self) -> None:
        if not math.isfinite(self.duration_s) or not MIN_DURATION_S <= self.duration_s <= MAX_ASKED_S:
            raise ValueError(
                f"duration_s must be {MIN_DURATION_S:.0f} to {MAX_ASKED_S:.0f} seconds, got {self.duration_s}"
            )
        if not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch must be 1 to {MAX_BATCH} songs, got {self.batch}")
        if not 0 <= self.seed <= MAX_SEED - self.batch:
            raise ValueError(f"seed must be 0 to {MAX_SEED - self.batch}, got {self.seed}")
        if not 0 <= self.steps <= 200:
            raise ValueError(f"steps must be 1 to 200, or 0 for the variant's default, got {self.steps}")
        if not math.isfinite(self.guidance_scale) or not 0 <= self.guidance_scale <= 30:
            raise ValueError(f"guidance_scale must be 0 to 30, got {self.guidance_scale}")
        if not math.isfinite(self.shift) or not 0 < self.shift <= 10:
            raise ValueError(f"shift must be above 0 and at most 10, got {self.shift}")
        if not (self.bpm == 0 or 30 <= self.bpm <= 300):
            raise ValueError(f"bpm must be 30 to 300, or 0 for any, got {self.bpm}")

    @property
    def latent_frames(self) -> int:
        """Latent frames of one song: 25 a second, rounded up."""
        return -(-self.samples // LATENT_HOP)

    @property
    def samples(self) -> int:
        """Audio samples of one song per channel."""
        return round(self.duration_s * SAMPLE_RATE)


class DecodePath(StrEnum):
    """Where the audio was decoded, from the fastest to the last resort."""

    GPU = "gpu"
    GPU_OFFLOAD = "gpu-offload"
    CPU = "cpu"


class Song(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One decoded song. `audio` is float32 of shape [2, samples], as the VAE gave it, not yet normalised."""

    seed: int
    audio: "np.ndarray"
    sample_rate: int = SAMPLE_RATE


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage took: seconds, and the most bytes that were allocated and reserved during it (0: not counted)."""

    name: str
    seconds: float
    songs_per_pass: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int


class Result(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What `Pipeline.generate` gives back: the songs in seed order and how they were made."""

    songs: tuple[Song, ...]
    stages: tuple[StageReport, ...]
    songs_per_pass: int
    decode_path: DecodePath
    warnings: tuple[str, ...]
