"""Audio that a person brings along: a song to work on, or one whose sound is to be had."""

import math
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray
else:
    # msgspec looks annotations up when it converts, and nobody without audio should wait for numpy.
    Samples = Any

SAMPLE_RATE = 48_000
"""Samples a second of every song and clip; ACE-Step 1.5's VAE was trained at 48 kHz stereo."""

LATENT_HOP = 1_920
"""Samples one latent frame stands for: the product of the VAE's strides 2*4*4*6*10."""

FRAMES_A_SECOND = SAMPLE_RATE // LATENT_HOP
"""Latent frames of a second of sound."""


class Clip(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`audio` is float32 of shape [2, samples] at 48 kHz, full scale at 1; a mono recording has it twice.

    `remarks` are sentences about how a file became this, for the person who brought it.

    Raises `ValueError` for another shape or dtype, for less than one latent frame (40 ms) and for samples that are
    not numbers. Clips are equal when they are the same.
    """

    audio: Samples
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = getattr(self.audio, "shape", None), str(getattr(self.audio, "dtype", type(self.audio).__name__))
        if shape is None or len(shape) != 2 or shape[0] != 2 or dtype != "float32":
            raise ValueError(f"audio must be a float32 array of shape [2, samples], got {dtype} of shape {shape}")
        if shape[1] < LATENT_HOP:
            raise ValueError(f"audio must have at least {LATENT_HOP} samples at {SAMPLE_RATE} Hz, got {shape[1]}")
        # The extremes carry every infinity and NaN along, and need no second array.
        if not (math.isfinite(self.audio.min()) and math.isfinite(self.audio.max())):
            raise ValueError("audio has samples that are infinite or not numbers")

    @property
    def samples(self) -> int:
        """Samples of each channel."""
        return int(self.audio.shape[1])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE
