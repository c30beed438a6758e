"""Recordings of many channels become stereo by the usual coefficients, with a message."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep.audio.mixdown import MINUS_3_DB, Speaker, mixdown, speakers_of
from acestep.audio.read import read_clip
from acestep.clip import SAMPLE_RATE

QUIET = 0.05
LEFT, RIGHT, MIDDLE = (1.0, 0.0), (0.0, 1.0), (MINUS_3_DB, MINUS_3_DB)
BEHIND_LEFT, BEHIND_RIGHT, NOT_HEARD = (MINUS_3_DB, 0.0), (0.0, MINUS_3_DB), (0.0, 0.0)
SURROUND = (LEFT, RIGHT, MIDDLE, NOT_HEARD, BEHIND_LEFT, BEHIND_RIGHT)
"""5.1 as WAV and FLAC files order it."""


def _one_channel_sounding(channels: int, sounding: int) -> np.ndarray:
    audio = np.zeros((SAMPLE_RATE // 10, channels), dtype=np.float32)
    audio[:, sounding] = QUIET
    return audio


def _heard(path: Path) -> tuple[float, float]:
    left, right = read_clip(path).audio[:, 1_000] / QUIET
    return float(left), float(right)


@pytest.mark.parametrize("channel", range(6))
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_each_channel_of_surround_sound_is_heard_where_its_speaker_stands(
    tmp_path: Path, suffix: str, channel: int
) -> None:
    path = tmp_path / f"surround.{suffix}"
    soundfile.write(path, _one_channel_sounding(6, channel), SAMPLE_RATE, subtype="PCM_24")
    assert _heard(path) == pytest.approx(SURROUND[channel], abs=1e-3)


def test_an_ogg_file_has_an_order_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "surround.ogg"
    soundfile.write(path, _one_channel_sounding(6, 1), SAMPLE_RATE, format="OGG", subtype="VORBIS")
    assert _heard(path) == pytest.approx(MIDDLE, abs=0.1)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (0b1011, (LEFT, RIGHT, NOT_HEARD)),
        (0b0111, (LEFT, RIGHT, MIDDLE)),
        (0b11_0000_0000 << 1 | 0b1, (LEFT, BEHIND_LEFT, BEHIND_RIGHT)),
    ],
)
def test_a_wav_file_that_names_its_speakers_is_believed(
    tmp_path: Path, mask: int, expected: tuple[tuple[float, float], ...]
) -> None:
    for channel, heard in enumerate(expected):
        path = tmp_path / f"{channel}.wav"
        soundfile.write(path, _one_channel_sounding(3, channel), SAMPLE_RATE, format="WAVEX", subtype="PCM_24")
        content = bytearray(path.read_bytes())
        at = content.index(b"fmt ") + 8 + 20
        content[at : at + 4] = struct.pack("<I", mask)
        path.write_bytes(content)
        assert _heard(path) == pytest.approx(heard, abs=1e-3)


@pytest.mark.parametrize("channels", range(3, 9))
def test_both_sides_get_the_same_total_gain(channels: int) -> None:
    for container in ("WAV", "OGG"):
        speakers = speakers_of(Path("/dev/null"), container, channels)
        assert speakers is not None
        assert mixdown(speakers, channels).sum(axis=0).tolist() == pytest.approx(
            [mixdown(speakers, channels)[:, 0].sum()] * 2
        )


def test_every_channel_but_lfe_is_mixed_in() -> None:
    assert {speaker for speaker in Speaker if speaker.gains == (0.0, 0.0)} == {Speaker.LFE}


def test_channels_at_full_scale_keep_their_balance(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    audio = np.ones((4_800, 6), dtype=np.float32)
    audio[:, 1] = 0.0
    soundfile.write(path, audio, SAMPLE_RATE, subtype="FLOAT")
    left, right = read_clip(path).audio[:, 1_000]
    assert left == pytest.approx(1.0)
    assert right / left == pytest.approx(2 * MINUS_3_DB / (1 + 2 * MINUS_3_DB), rel=1e-3)


def test_one_warning_names_the_file_that_was_mixed_down(tmp_path: Path) -> None:
    path = tmp_path / "film.wav"
    soundfile.write(path, np.zeros((4_800, 6)), SAMPLE_RATE)
    (remark,) = read_clip(path).remarks
    assert "film.wav has 6 channels (5.1)" in remark
    assert "LFE" in remark


def test_channels_without_known_speakers_give_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "many.wav"
    soundfile.write(path, np.zeros((4_800, 12)), SAMPLE_RATE)
    (remark,) = read_clip(path).remarks
    assert "the first two are used" in remark
