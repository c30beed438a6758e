"""Audio that a user gives: a song to work on, or a reference for the timbre."""

import math
from typing import TYPE_CHECKING, Any

import msgspec

from acestep.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray
else:
    # msgspec evaluates annotations when it converts, and requests without audio should not have to import numpy.
    Samples = Any

SAMPLE_RATE = 48_000
"""Samples per second of every song and clip; ACE-Step 1.5's VAE was trained at 48 kHz stereo."""

LATENT_HOP = 1_920
"""Audio samples per latent frame: the product of the VAE's strides 2*4*4*6*10."""

FRAMES_A_SECOND = SAMPLE_RATE // LATENT_HOP
"""Latent frames per second."""

MIN_DURATION_S = 1.0
MAX_ASKED_S = 3_600.0
"""The longest song a request may ask for: a length above a plan's limit is reduced with a warning, not refused."""


class Clip(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`audio` is float32 of shape [2, samples] at 48 kHz, full scale at 1; mono is stored twice.

    `remarks` are sentences for the user about how a file was converted.

    Raises `ValueError` for another shape or dtype, for less than one latent frame (40 ms) and for samples that are not
    numbers. Clips are equal only if they are the same object.
    """

    audio: Samples
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = getattr(self.audio, "shape", None), str(getattr(self.audio, "dtype", type(self.audio).__name__))
        if shape is None or len(shape) != 2 or shape[0] != 2 or dtype != "float32":
            raise ValueError(f"audio must be a float32 array of shape [2, samples], got {dtype} of shape {shape}")
        if shape[1] < LATENT_HOP:
            raise ValueError(f"audio must have at least {LATENT_HOP} samples at {SAMPLE_RATE} Hz, got {shape[1]}")
        # The minimum and maximum show every infinity and NaN, without a second array.
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

    def require_song_length(self) -> None:
        """Raise `UsageError` if no song can follow the clip because it is too short or too long."""
        if not MIN_DURATION_S <= self.duration_s <= MAX_ASKED_S:
            raise UsageError(
                f"the recording must last {MIN_DURATION_S:.0f} to {MAX_ASKED_S:.0f} seconds, got {self.duration_s:g};"
                " bring another one"
            )
