"""Writes songs to files: peak-normalised, and a file is complete or absent."""

import errno
import math
import os
import re
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from acestep.audio.comments import add_id3
from acestep.errors import RunFailedError, UsageError
from acestep.output_file import PART_SUFFIX, part_prefix, remove_parts

PEAK_DBFS = -1.0
"""Peak of every written song, in decibels below full scale: the level ACE-Step 1.5 delivers at."""

SILENT_PEAK = 1e-6
"""A song whose peak is below this is not amplified, because it would become noise."""


MOST_OGG_COMMENT = 48_000
"""The longest comment of an Ogg file: libsndfile writes longer ones, and then cannot read the file."""


class FileFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How libsndfile writes a format, in its names; `media_type` is that of its files over HTTP.

    `tags` says whether libsndfile writes the tags too.

    A longer comment than `most_comment` bytes is left out.
    """

    suffix: str
    container: str
    subtype: str
    media_type: str
    tags: bool
    most_comment: int = 1 << 30


FILE_FORMATS = {
    "flac": FileFormat(suffix="flac", container="FLAC", subtype="PCM_24", media_type="audio/flac", tags=True),
    "wav": FileFormat(suffix="wav", container="WAV", subtype="PCM_24", media_type="audio/wav", tags=False),
    "wav32": FileFormat(suffix="wav", container="WAV", subtype="FLOAT", media_type="audio/wav", tags=False),
    "mp3": FileFormat(suffix="mp3", container="MP3", subtype="MPEG_LAYER_III", media_type="audio/mpeg", tags=False),
    "opus": FileFormat(
        suffix="opus", container="OGG", subtype="OPUS", media_type="audio/ogg", tags=True, most_comment=MOST_OGG_COMMENT
    ),
}
"""The formats of songs by the names that a user gives; wav32 has samples of 32 bits, in floating point."""

MEDIA_TYPES = {f".{form.suffix}": form.media_type for form in FILE_FORMATS.values()}
"""The media type of a song's file by its suffix."""


def normalise(audio: np.ndarray, *, keeps_level: bool = False) -> np.ndarray:
    """Scale `audio` [2, samples] float32 to a peak of -1 dBFS, unless it is to keep its level.

    Raises `RunFailedError` when a sample is not a number: the weights or their format do not work on this card.
    """
    peak = float(np.abs(audio).max(initial=0.0))
    if not math.isfinite(peak):
        raise RunFailedError(
            "The model's output overflowed, so there is no song to write. Try `--quantization none`; where that does"
            " not help, the weights may be damaged: fetch them again."
        )
    return audio if keeps_level or peak < SILENT_PEAK else audio * np.float32(10 ** (PEAK_DBFS / 20) / peak)


def peak_dbfs(audio: np.ndarray) -> float:
    """The peak of `audio` in decibels below full scale, -120 for silence."""
    return 20 * math.log10(max(float(np.abs(audio).max(initial=0.0)), SILENT_PEAK))


def stem(caption: str, seed: int) -> str:
    """A file name for a song: the caption's first words, and the seed."""
    words = re.sub(r"[^\w]+", "-", caption, flags=re.UNICODE).strip("-").lower()[:40].strip("-")
    return f"{words or 'song'}-{seed}"


def open_folder(folder: Path) -> None:
    """Check that songs can be written to `folder` before the long computation; `RunFailedError` says why not.

    Raises `UsageError` for a name that is not UTF-8, because a JSON document of the songs could not contain it.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the folder's name {str(folder)!r} is not UTF-8; choose another with --out") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
        with NamedTemporaryFile(prefix=part_prefix(), suffix=PART_SUFFIX, dir=folder):
            pass
    except OSError as error:
        raise RunFailedError(
            f"Songs cannot be written to {folder} ({error}); choose another folder with --out"
        ) from None


def require_writable(audio_format: str) -> None:
    """Raise `UsageError` for a format that this machine's libsndfile cannot write."""
    import soundfile

    wanted = FILE_FORMATS[audio_format]
    if not soundfile.check_format(wanted.container, wanted.subtype):
        able = [name for name, one in FILE_FORMATS.items() if soundfile.check_format(one.container, one.subtype)]
        raise UsageError(f"this machine's libsndfile cannot write {audio_format}; choose one of {', '.join(able)}")


def write_song(
    folder: Path,
    name: str,
    audio_format: str,
    audio: np.ndarray,
    sample_rate: int,
    *,
    title: str,
    comment: str,
    mp3_bitrate: int | None = None,
) -> Path:
    """Write `audio` [2, samples] to a file of that name, or of the next free name; the file appears only when complete.

    Its tags have the title and the comment, which is in ASCII. `mp3_bitrate` is in kbit/s.

    No existing song is overwritten, even if another process writes one of the same name at the same time. Raises
    `RunFailedError` when the disk refuses.
    """
    import soundfile

    form = FILE_FORMATS[audio_format]
    comment = comment if len(comment) <= form.most_comment else ""
    try:
        with TemporaryDirectory(prefix=part_prefix(), suffix=PART_SUFFIX, dir=folder) as aside:
            whole = Path(aside) / f"{name}.{form.suffix}"
            with soundfile.SoundFile(
                whole,
                "w",
                sample_rate,
                len(audio),
                format=form.container,
                subtype=form.subtype,
                **_constant(mp3_bitrate),
            ) as song:
                if form.tags:
                    # libsndfile refuses empty tags.
                    song.title, song.comment = title or " ", comment or " "
                song.write(audio.T)
            if not form.tags:
                add_id3(whole, title, comment)
            return _put(whole, folder)
    except (OSError, soundfile.LibsndfileError) as error:
        raise RunFailedError(
            f"{name}.{form.suffix} could not be written to {folder} ({error}); is the disk full?"
        ) from None


def _constant(mp3_bitrate: int | None) -> dict[str, Any]:
    """The arguments for a constant bitrate in kbit/s; none for the library's own choice.

    For libsndfile, compression level 0 is 320 kbit/s and 1 is 32 (`mpeg_l3_encoder_set_quality`).
    """
    if mp3_bitrate is None:
        return {}
    return {"bitrate_mode": "CONSTANT", "compression_level": (320 - mp3_bitrate) / (320 - 32)}


_WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""What file systems without hard links answer, such as those of memory cards."""


def _put(whole: Path, folder: Path) -> Path:
    """Move a file to the first free name."""
    for number in range(1, 10_000):
        path = folder / f"{whole.stem}{f'-{number}' if number > 1 else ''}{whole.suffix}"
        # Checking that a name is free and taking it must be one atomic step, after which the song is complete.
        try:
            if os.name == "nt":
                return whole.rename(path)
            path.hardlink_to(whole)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            return whole.replace(path)
        return path
    raise RunFailedError(f"{folder} has thousands of songs named {whole.stem}; choose another folder with --out")
