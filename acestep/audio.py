"""Songs to files: peak-normalised, and never half written."""

import math
import re
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from acestep.errors import RunFailedError, UsageError

PEAK_DBFS = -1.0
"""Peak of every written song, in decibels below full scale: the level ACE-Step 1.5 delivers at."""

SILENCE = 1e-6
"""A song whose peak is below this is left silent instead of being blown up to noise."""

SUBTYPES = {"flac": "PCM_24", "wav": "PCM_24", "mp3": "MPEG_LAYER_III"}


def normalise(audio: np.ndarray) -> np.ndarray:
    """`audio` [2, samples] float32 scaled to a peak of -1 dBFS.

    Raises `RunFailedError` when a sample is not a number: the weights or their format do not work on this card.
    """
    peak = float(np.abs(audio).max(initial=0.0))
    if not math.isfinite(peak):
        raise RunFailedError(
            "The model's output overflowed, so there is no song to write. Try `--quantization none`, or another card:"
            " some older ones cannot compute this model in half precision."
        )
    return audio if peak < SILENCE else audio * np.float32(10 ** (PEAK_DBFS / 20) / peak)


def peak_dbfs(audio: np.ndarray) -> float:
    """The peak of `audio` in decibels below full scale, -120 for silence."""
    return 20 * math.log10(max(float(np.abs(audio).max(initial=0.0)), SILENCE))


def stem(caption: str, seed: int) -> str:
    """A file name for a song: the caption's first words, and the seed."""
    words = re.sub(r"[^\w]+", "-", caption, flags=re.UNICODE).strip("-").lower()[:40].strip("-")
    return f"{words or 'song'}-{seed}"


def free_path(folder: Path, name: str, suffix: str) -> Path:
    """A path in `folder` that no file has yet; nobody's song is overwritten."""
    candidates = (folder / f"{name}{f'-{n}' if n > 1 else ''}.{suffix}" for n in range(1, 10_000))
    for path in candidates:
        if not path.exists():
            return path
    raise RunFailedError(f"{folder} has thousands of songs named {name}; choose another folder with --out")


def open_folder(folder: Path) -> None:
    """Make sure songs can be written to `folder` before minutes are spent on them; `RunFailedError` says why not.

    Raises `UsageError` for a name that is not UTF-8, which no JSON document of the songs could hold.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the folder's name {str(folder)!r} is not UTF-8; choose another with --out") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunFailedError(
            f"Songs cannot be written to {folder} ({error}); choose another folder with --out"
        ) from None


def write(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    """Write `audio` [2, samples] beside `path` and rename, so that a file that exists is complete."""
    import soundfile

    suffix = path.suffix.removeprefix(".")
    beside = path.with_name(f".{path.name}.part")
    try:
        soundfile.write(beside, audio.T, sample_rate, format=suffix.upper(), subtype=SUBTYPES[suffix])
        beside.replace(path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise RunFailedError(f"{path} could not be written ({error}); is the disk full?") from None
    finally:
        beside.unlink(missing_ok=True)
