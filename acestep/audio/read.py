"""A user's audio files as clips: any format libsndfile reads, any rate, any number of channels.

A file is read in blocks that are mixed down and resampled one by one, so that it takes no more memory than the
resulting clip, whatever its header says and however large its uncompressed size is.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from acestep.audio.endless import endless, is_cut_ogg
from acestep.audio.formats import GUESSED, conversion, reason, unreadable
from acestep.audio.joined import holds_several
from acestep.audio.mixdown import mixdown, speakers_of, told_mixdown
from acestep.audio.sound_size import with_sound_size
from acestep.clip import LATENT_HOP, SAMPLE_RATE, Clip
from acestep.errors import InvalidInputError
from acestep.regular_file import require_regular
from acestep.request import MAX_DURATION_S
from acestep.units import minutes

MIN_RATE, MAX_RATE = 4_000, 768_000
"""Usual sample rates of music, up to sixteen times 48 kHz; a header with another rate is broken."""

BLOCK = 1 << 18
"""Values read in one block, of all channels together: 1 MiB."""

QUALITY = "VHQ"
"""The resampler's best quality: images and aliases are below the noise of 24 bits, and the pass band is flat to 20 kHz.
"""

ENDLESS = 1 << 48
"""More frames than any file has: with such a number the header does not know the length, as in a recorded stream."""

MAX_SAID_S = 24 * 3_600.0
"""A header that gives more is wrong."""

MISSING_S, MISSING_SHARE = 1.0, 0.05
"""If a file is shorter than its header says by more than both values, a warning calls it incomplete."""


def read_clip(path: Path) -> Clip:
    """Read a file as a clip: resampled to 48 kHz, mono on both sides, more channels mixed down, no clipping.

    Warnings for the user are in the clip's `remarks`. Raises `InvalidInputError` for a file that is not audio, has no
    samples, or is longer than ten minutes.
    """
    try:
        if not path.exists():
            raise InvalidInputError(path, "does not exist")
        require_regular(path)
        if path.stat().st_size == 0:
            raise InvalidInputError(path, "is empty: it has 0 bytes")
        _refuse_long(path)
        return _read(path)
    except OSError as error:
        raise InvalidInputError(path, f"cannot be read ({reason(error)})") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(path, unreadable(path, reason(error))) from None


def said_seconds(path: Path) -> float:
    """Return the length of a recording by its header, ten minutes if it does not say, 0 if it cannot be read."""
    try:
        with _opened(path) as (file, said):
            return min(said / file.samplerate or MAX_DURATION_S, MAX_DURATION_S)
    except (InvalidInputError, OSError, RuntimeError, TypeError, ValueError):
        return 0.0


def _read(path: Path) -> Clip:
    with _opened(path) as (file, said):
        rate, channels = file.samplerate, file.channels
        speakers = speakers_of(path, file.format, channels)
        matrix, resampled, limit = mixdown(speakers, channels), _Resampled(rate, 2), int(MAX_DURATION_S * rate)
        kept, frames = _Kept(ceil(min(said, limit) / rate * SAMPLE_RATE) + LATENT_HOP), 0
        damage = list[str]()
        for block in _blocks(path, file, said, damage):
            frames += len(block)
            if frames > limit:
                raise _too_long(path, f"longer than {MAX_DURATION_S:.0f} seconds")
            stereo = block @ matrix
            if speakers is None:
                np.clip(stereo, -1.0, 1.0, out=stereo)
            kept.add(resampled.of(stereo))
    if not frames:
        raise InvalidInputError(path, "holds no sound that can be read; it may be incomplete, so export it again")
    kept.add(resampled.of(np.zeros((0, 2), dtype=np.float32), last=True))
    audio = kept.audio
    if audio.shape[1] < LATENT_HOP:
        raise InvalidInputError(path, f"is shorter than {1000 * LATENT_HOP // SAMPLE_RATE} ms")
    peak = 1.0 if speakers is None else max(float(audio.max()), -float(audio.min()))
    if peak > 1.0:
        # Several channels at full scale add up to more than full scale; all are scaled down by the same factor.
        audio /= peak
    missing = _told_missing(path, frames / rate, said / rate) or damage
    told = (*told_mixdown(path.name, speakers, channels), *(_told_joined(path, frames / rate) or missing))
    return Clip(audio=audio, remarks=told)


class _Kept:
    """Collects blocks of two sides, [samples, 2], in one array [2, samples] of the expected size.

    It grows if needed.
    """

    def __init__(self, expected: int) -> None:
        self._audio = np.empty((2, expected), dtype=np.float32)
        self._samples = 0

    def add(self, block: np.ndarray) -> None:
        after = self._samples + len(block)
        if after > self._audio.shape[1]:
            wider = np.empty((2, max(after, 2 * self._samples)), dtype=np.float32)
            wider[:, : self._samples] = self._audio[:, : self._samples]
            self._audio = wider
        self._audio[:, self._samples : after] = block.T
        self._samples = after

    @property
    def audio(self) -> np.ndarray:
        """The blocks added so far; unwritten memory is not committed."""
        return self._audio[:, : self._samples]


class _Resampled:
    """Resamples a stream of blocks [samples, channels] to 48 kHz."""

    def __init__(self, rate: int, channels: int) -> None:
        self._stream: Any = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, channels, dtype="float32", quality=QUALITY)

    def of(self, block: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Add a block and return the samples that are ready; after the `last` block, all remaining ones."""
        made: np.ndarray = block if self._stream is None else self._stream.resample_chunk(block, last=last)
        return made


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int]]:
    """Open a file for reading, as `soundfile.SoundFile`; also return the frames its header gives, 0 for unknown.

    Raises `InvalidInputError` for an unusual sample rate.
    """
    import soundfile

    class Forward(soundfile.SoundFile):  # type: ignore[misc]
        """Reads from begin to end: soundfile by default seeks after each block, which not every format supports."""

        def seekable(self) -> bool:
            return False

    with path.open("rb") as plain, ExitStack() as open_files:
        corrected, share = with_sound_size(plain)
        longer = endless(plain)
        source = corrected if longer is None else longer[0]
        plain.seek(0)
        # libsndfile detects the format from the content, except for some suffixes; it reads names of UTF-8 only.
        is_utf_8 = str(path).encode(errors="ignore") == os.fsencode(path) or os.name == "nt"
        by_name = is_utf_8 and path.suffix.lower() not in GUESSED
        named = path if by_name else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        file = open_files.enter_context(Forward(source or named))
        if not MIN_RATE <= file.samplerate <= MAX_RATE:
            raise InvalidInputError(
                path,
                f"says it has {file.samplerate} samples a second; {MIN_RATE} to {MAX_RATE} can be read, so convert it,"
                f" such as with: {conversion(path, output_options=f'-ar {SAMPLE_RATE}')}",
            )
        if file.subtype.startswith("ALAC"):
            # Its length does not come from the size of its sound.
            share = 1.0
        yield file, longer[1] if longer else round(file.frames / share) if file.frames < ENDLESS else 0


def _blocks(path: Path, file: Any, said: int, damage: list[str]) -> Iterator[np.ndarray]:
    """The frames of a file, [frames, channels] float32, block by block; a warning about damage is added to `damage`.

    Each block is valid until the next one is read. `said` is the number of frames in the file's header, 0 for unknown.
    """
    buffer = np.empty((max(1, BLOCK // file.channels), file.channels), dtype=np.float32)
    done, is_whole = 0, True
    while is_whole and len(block := _next(file, buffer, damage)):
        is_whole = not damage
        # The minimum and maximum show every infinity and NaN, without a second array.
        if not (np.isfinite(block.min()) and np.isfinite(block.max())):
            raise InvalidInputError(path, "has samples that are infinite or not numbers; export it again")
        done += len(block)
        yield block
    if damage and not done:
        raise InvalidInputError(
            path, f"is damaged or incomplete and cannot be read at all ({damage[0]}); export or download it again"
        )
    if damage and done >= said > 0:
        # After the sound, files may have tags of other programs.
        damage.clear()
    damage[:] = [
        f"{path.name} is damaged or incomplete: only its first {minutes(done / file.samplerate)} are used."
        for _ in damage
    ]


def _next(file: Any, buffer: np.ndarray, damage: list[str]) -> np.ndarray:
    """The next frames of a file; where it cannot be read further, those before, and the reason in `damage`."""
    buffer.fill(np.nan)
    try:
        block: np.ndarray = file.read(out=buffer)
    except RuntimeError as error:
        damage.append(reason(error))
        unread = np.isnan(buffer).any(axis=1)
        block = buffer[: int(unread.argmax()) if unread.any() else len(buffer)]
    return block


def _refuse_long(path: Path) -> None:
    """Refuse a file whose header says that it is too long, if there really is a sample beyond the limit."""
    with _opened(path) as (file, said):
        limit = int(MAX_DURATION_S * file.samplerate)
        if said <= limit:
            return
        beyond = 0
        with suppress(OSError, RuntimeError):
            file.seek(limit)
            beyond = len(file.read(1))
        if beyond:
            length, most = f"{said / file.samplerate / 60:.0f} minutes", f"{MAX_DURATION_S / 60:.0f}"
            if length == f"{most} minutes":
                length, most = f"{ceil(said / file.samplerate)} seconds", f"{MAX_DURATION_S:.0f}"
            raise InvalidInputError(path, f"is {length} long; at most {most} can be used, so cut it")


def _too_long(path: Path, length: str) -> InvalidInputError:
    return InvalidInputError(path, f"is {length}; at most {MAX_DURATION_S:.0f} can be used, so cut it")


def _told_joined(path: Path, used_s: float) -> tuple[str, ...]:
    several = False
    with suppress(OSError, ValueError):
        several = holds_several(path)
    if not several:
        return ()
    return (f"{path.name} holds several recordings, one after another: only the first, {minutes(used_s)}, is used.",)


def _told_missing(path: Path, there_s: float, said_s: float) -> tuple[str, ...]:
    if MAX_SAID_S > said_s >= there_s + max(MISSING_S, MISSING_SHARE * said_s):
        lacks = f"says that it is {minutes(said_s)} long, but it ends after {minutes(there_s)}"
    else:
        with path.open("rb") as file:
            if not is_cut_ogg(file):
                return ()
        lacks = "has no end mark"
    return (f"{path.name} {lacks}: it is incomplete.",)
