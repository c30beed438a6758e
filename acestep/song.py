"""A song as the pipeline makes it, and where it was decoded."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from acestep.clip import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np

SongCodes = Sequence[tuple[int, ...]]
"""Audio codes, 5 per second: one sequence for each song, or one that all songs share."""


class DecodePath(StrEnum):
    """Where the audio was decoded, from the fastest to the last fallback."""

    GPU = "gpu"
    GPU_OFFLOAD = "gpu-offload"
    CPU = "cpu"


class Song(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One decoded song. `audio` is float32 of shape [2, samples], as the VAE gave it, not yet normalised.

    `keeps_level` says that parts of it are samples of the source, which a change of level would change.
    """

    seed: int
    audio: "np.ndarray"
    keeps_level: bool = False
    sample_rate: int = SAMPLE_RATE
