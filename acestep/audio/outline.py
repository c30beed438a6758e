"""The outline of a song: how loud it is along its length, to draw it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import soundfile

BARS: Final = 96

_LOUDEST: Final = 100

_FRAMES: Final = 1_024
"""Samples that are looked at for each bar: reading all of a song of ten minutes takes seconds."""

_READ_WHOLE: Final = frozenset({"MP3"})
"""Formats in which libsndfile reads silence after it was sent to another place, as soundfile does after each read."""


def outline(path: Path) -> tuple[int, ...]:
    """Return the loudness of `BARS` moments of a song, 100 for its loudest; () if the file cannot be read."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as song:
            if song.format in _READ_WHOLE:
                parts = np.array_split(song.read(dtype="float32", always_2d=True), BARS)
            else:
                parts = [_part(song, bar) for bar in range(BARS)]
    except (OSError, soundfile.LibsndfileError):
        return ()
    levels = [float(np.sqrt(np.mean(np.square(part)))) if part.size else 0.0 for part in parts]
    loudest = max(levels)
    return tuple(round(_LOUDEST * level / loudest) if loudest > 0 else 0 for level in levels)


def _part(song: "soundfile.SoundFile", bar: int) -> np.ndarray:
    """Samples from the beginning of a bar on, float32 of shape [frames, channels]."""
    song.seek(song.frames * bar // BARS)
    return np.asarray(song.read(_FRAMES, dtype="float32", always_2d=True))
