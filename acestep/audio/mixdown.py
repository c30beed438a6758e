"""Mixing many channels to two: the speaker of each channel, and its gain on both sides."""

from enum import IntEnum
from pathlib import Path

import numpy as np

from acestep.audio.sound_size import channel_mask

MINUS_3_DB = 2**-0.5
"""The gain of centre and surround channels (ITU-R BS.775, annex 4)."""


class Speaker(IntEnum):
    """Speakers in the order of the bits of WAVE_FORMAT_EXTENSIBLE's channel mask, the order of the channels too."""

    FRONT_LEFT = 0
    FRONT_RIGHT = 1
    FRONT_CENTRE = 2
    LFE = 3
    BACK_LEFT = 4
    BACK_RIGHT = 5
    FRONT_LEFT_OF_CENTRE = 6
    FRONT_RIGHT_OF_CENTRE = 7
    BACK_CENTRE = 8
    SIDE_LEFT = 9
    SIDE_RIGHT = 10
    TOP_CENTRE = 11
    TOP_FRONT_LEFT = 12
    TOP_FRONT_CENTRE = 13
    TOP_FRONT_RIGHT = 14
    TOP_BACK_LEFT = 15
    TOP_BACK_CENTRE = 16
    TOP_BACK_RIGHT = 17

    @property
    def gains(self) -> tuple[float, float]:
        """The gains on the left and the right side; the LFE channel is left out."""
        side, middle, name = MINUS_3_DB, MINUS_3_DB**2, self.name
        if self is Speaker.LFE:
            return 0.0, 0.0
        if self is Speaker.FRONT_CENTRE:
            return MINUS_3_DB, MINUS_3_DB
        if name.endswith("_CENTRE") and "_OF_" not in name:
            return middle, middle
        if name.startswith("FRONT"):
            side = 1.0
        return (side, 0.0) if "LEFT" in name else (0.0, side)


_FL, _FR, _FC, _LFE = Speaker.FRONT_LEFT, Speaker.FRONT_RIGHT, Speaker.FRONT_CENTRE, Speaker.LFE
_BL, _BR, _BC = Speaker.BACK_LEFT, Speaker.BACK_RIGHT, Speaker.BACK_CENTRE
_SL, _SR = Speaker.SIDE_LEFT, Speaker.SIDE_RIGHT

_WAVE_ORDERS = {
    3: (_FL, _FR, _FC),
    4: (_FL, _FR, _BL, _BR),
    5: (_FL, _FR, _FC, _BL, _BR),
    6: (_FL, _FR, _FC, _LFE, _BL, _BR),
    7: (_FL, _FR, _FC, _LFE, _BC, _SL, _SR),
    8: (_FL, _FR, _FC, _LFE, _BL, _BR, _SL, _SR),
}
"""Channels of a file that does not name its speakers, as the FLAC format (RFC 9639, 9.1.3) defines them."""

_VORBIS_ORDERS = {
    3: (_FL, _FC, _FR),
    4: (_FL, _FR, _BL, _BR),
    5: (_FL, _FC, _FR, _BL, _BR),
    6: (_FL, _FC, _FR, _BL, _BR, _LFE),
    7: (_FL, _FC, _FR, _SL, _SR, _BC, _LFE),
    8: (_FL, _FC, _FR, _SL, _SR, _BL, _BR, _LFE),
}
"""The same in an Ogg file (Vorbis I specification, 4.3.9; Opus uses the same order)."""


def speakers_of(path: Path, container: str, channels: int) -> tuple[Speaker, ...] | None:
    """Return the speakers of a recording's channels; None for one or two channels, or if they are unknown.

    `container` is libsndfile's name of the format. A channel beyond the named speakers is left out.
    """
    if channels < 3:
        return None
    with path.open("rb") as file:
        mask = channel_mask(file)
    named = tuple(speaker for speaker in Speaker if mask >> speaker & 1)[:channels]
    orders = _VORBIS_ORDERS if container == "OGG" else _WAVE_ORDERS
    return named or orders.get(channels)


def mixdown(speakers: tuple[Speaker, ...] | None, channels: int) -> np.ndarray:
    """Return the matrix that mixes `frames` [samples, channels] to two sides: float32 of shape [channels, 2].

    Mono goes to both sides; without known speakers the first two channels are used.
    """
    matrix = np.zeros((channels, 2), dtype=np.float32)
    if speakers is None:
        matrix[0, 0] = matrix[min(1, channels - 1), 1] = 1.0
    else:
        matrix[: len(speakers)] = [speaker.gains for speaker in speakers]
    return matrix


def told_mixdown(name: str, speakers: tuple[Speaker, ...] | None, channels: int) -> tuple[str, ...]:
    """Warnings about how the channels of a file were mixed to two."""
    if channels < 3:
        return ()
    if speakers is None:
        return (
            f"{name} has {channels} channels and does not say which speakers they are for: the first two are used.",
        )
    low = speakers.count(Speaker.LFE)
    without = ", without the LFE channel" if low else ""
    return (
        f"{name} has {channels} channels ({len(speakers) - low}.{low}): they were mixed down to stereo, with centre and"
        f" surround channels at -3 dB{without}.",
    )
