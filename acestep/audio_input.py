"""A person's audio files as clips: any format libsndfile reads, any rate, mono or stereo."""

from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np

from acestep.clip import LATENT_HOP, SAMPLE_RATE, Clip
from acestep.errors import InvalidInputError
from acestep.request import MAX_DURATION_S

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Sample rates that music is kept at; a header that says something else is broken."""

BLOCK = 1 << 20
"""Values that are read at once, so that a file of many channels never exists as a whole."""

MAX_TERM = 2_000
"""Largest term of a ratio of rates: exact for all rates in use, and less than half a cent out of tune for others."""

CROSSINGS, ROLLOFF, KAISER_BETA = 32, 0.95, 10.0
"""Zero crossings of the interpolating sinc to each side, its cut-off below Nyquist, and the shape of its window:
images and aliases are 90 dB down, and the pass band is flat up to 20 kHz at 44.1 kHz.
"""


def read_clip(path: Path) -> Clip:
    """The clip in a file: resampled to 48 kHz, mono on both sides, of more channels the first two, peaks clipped at 1.

    Raises `InvalidInputError` for a file that is no audio, holds none, or more than ten minutes.
    """
    import soundfile

    if not path.is_file():
        raise InvalidInputError(path, "is no file" if path.exists() else "does not exist")
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames = file.samplerate, file.frames
            _check_header(path, rate, frames)
            size = max(1, BLOCK // file.channels)
            blocks = [block[:, :2].T.copy() for block in file.blocks(size, dtype="float32", always_2d=True)]
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInputError(path, f"cannot be read as audio ({error})") from None
    if not blocks:
        raise InvalidInputError(path, "holds no sound")
    audio = np.concatenate(blocks, axis=1)
    del blocks
    if not np.isfinite(audio.min()) or not np.isfinite(audio.max()):
        raise InvalidInputError(path, "has samples that are infinite or not numbers; export it again")
    audio = resample(np.clip(audio, -1.0, 1.0, out=audio), rate)
    if audio.shape[1] < LATENT_HOP:
        raise InvalidInputError(path, f"is shorter than {1000 * LATENT_HOP // SAMPLE_RATE} ms")
    return Clip(audio=np.repeat(audio, 2, axis=0) if len(audio) == 1 else np.ascontiguousarray(audio))


def resample(audio: np.ndarray, rate: int) -> np.ndarray:
    """`audio` [channels, samples] float32 of a sample rate at 48 kHz, in time with the original from the first sample.

    A polyphase filter: every output sample is a windowed sinc over its neighbours.
    """
    if rate == SAMPLE_RATE:
        return audio
    import torch

    ratio = Fraction(SAMPLE_RATE, rate).limit_denominator(MAX_TERM * min(SAMPLE_RATE, rate) // SAMPLE_RATE)
    up, down = ratio.numerator, ratio.denominator
    taps = torch.from_numpy(_taps(up, down))
    reach = (taps.shape[-1] - down) // 2
    made = ceil(audio.shape[1] * ratio)
    padded = torch.nn.functional.pad(torch.from_numpy(audio)[:, None], (reach, reach + down))
    phases = torch.nn.functional.conv1d(padded, taps, stride=down)
    return phases.transpose(1, 2).flatten(1)[:, :made].numpy()


def _taps(up: int, down: int) -> np.ndarray:
    """Filters [up, 1, taps] float32, one for each place that an output sample can have between two input samples."""
    cutoff = ROLLOFF * min(1.0, up / down)
    reach = ceil(CROSSINGS / cutoff)
    at = np.arange(-reach, reach + down)[None] - np.arange(up)[:, None] * (down / up)
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (at / reach) ** 2, 0, None))) / np.i0(KAISER_BETA)
    taps = cutoff * np.sinc(cutoff * at) * np.where(np.abs(at) <= reach, window, 0.0)
    return taps.astype(np.float32)[:, None]


def _check_header(path: Path, rate: int, frames: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidInputError(path, f"says it has {rate} samples a second; {MIN_RATE} to {MAX_RATE} can be read")
    if frames > MAX_DURATION_S * rate:
        length, most = f"{frames / rate / 60:.0f} minutes", f"{MAX_DURATION_S / 60:.0f}"
        if length == f"{most} minutes":
            length, most = f"{ceil(frames / rate)} seconds", f"{MAX_DURATION_S:.0f}"
        raise InvalidInputError(path, f"is {length} long; at most {most} can be used, so cut it")
