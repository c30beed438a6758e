"""Any audio file becomes 48 kHz stereo, or a sentence says why it cannot."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.audio.read import MAX_RATE, MIN_RATE, _Resampled, read_clip
from acestep.clip import SAMPLE_RATE
from acestep.errors import InvalidInputError

COMMON_RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000)
EDGE = 2_000
"""Samples at both ends where a filter hears the silence around the recording."""


def _tone(pitch: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)


def resample(audio: np.ndarray, rate: int) -> np.ndarray:
    return _Resampled(rate, len(audio)).of(np.ascontiguousarray(audio.T), last=True).T


def _write(path: Path, audio: np.ndarray, rate: int = SAMPLE_RATE, **options: str) -> Path:
    soundfile.write(path, audio, rate, **options)
    return path


@pytest.mark.parametrize("rate", COMMON_RATES)
def test_a_tone_keeps_its_pitch_its_level_and_its_place(rate: int) -> None:
    pitch = 0.4 * min(rate, SAMPLE_RATE) / 2
    made = resample(_tone(pitch, rate)[None].astype(np.float32), rate)[0]
    assert len(made) == SAMPLE_RATE
    assert np.abs(made - _tone(pitch, SAMPLE_RATE))[EDGE:-EDGE].max() < 1e-4


@pytest.mark.parametrize("rate", [96_000, 192_000])
def test_frequencies_above_24_khz_are_removed_without_aliases(rate: int) -> None:
    made = resample(_tone(30_000, rate)[None].astype(np.float32), rate)[0]
    assert np.abs(made)[EDGE:-EDGE].max() < 1e-4


@settings(max_examples=15)
@given(rate=st.integers(MIN_RATE, MAX_RATE))
def test_an_odd_rate_is_in_tune_within_half_a_cent(rate: int) -> None:
    made = resample(_tone(440, rate, 0.3)[None].astype(np.float32), rate)[0]
    cent = 2 ** (1 / 1200) - 1
    assert abs(len(made) / SAMPLE_RATE - 0.3) < 0.3 * cent / 2 + 2 / min(rate, SAMPLE_RATE)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_every_format_is_read_as_stereo(tmp_path: Path, name: str) -> None:
    times = _tone(440, 44_100), _tone(660, 44_100)
    clip = read_clip(_write(tmp_path / name, 0.5 * np.stack(times, axis=1), 44_100))
    assert clip.audio.shape[0] == 2
    assert clip.duration_s == pytest.approx(1.0, abs=0.05)
    left, right = np.abs(np.fft.rfft(clip.audio[:, :SAMPLE_RATE])).argmax(axis=1)
    assert (left, right) == pytest.approx((440, 660), abs=30)


def test_mono_is_on_both_sides(tmp_path: Path) -> None:
    mono = read_clip(_write(tmp_path / "mono.wav", _tone(440, SAMPLE_RATE), subtype="FLOAT"))
    assert np.array_equal(mono.audio[0], mono.audio[1])
    assert mono.remarks == ()


def test_peaks_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    clip = read_clip(_write(tmp_path / "loud.wav", 5 * _tone(440, SAMPLE_RATE), subtype="FLOAT"))
    assert np.abs(clip.audio).max() == 1.0


def test_a_file_that_is_no_audio_says_so(tmp_path: Path) -> None:
    text = tmp_path / "words.wav"
    text.write_text("la la la")
    empty = _write(tmp_path / "empty.wav", np.zeros((0, 2)))
    short = _write(tmp_path / "short.wav", np.zeros((100, 2)))
    broken = _write(tmp_path / "broken.wav", np.full((48_000, 2), np.nan), subtype="FLOAT")
    endless = _write(tmp_path / "endless.wav", np.zeros(601 * 8_000, dtype=np.int16), 8_000)
    longer = _write(tmp_path / "longer.wav", np.zeros(660 * 8_000, dtype=np.int16), 8_000)
    slow = _write(tmp_path / "slow.wav", np.zeros(4_000), 100)
    cut = _write(tmp_path / "cut.flac", 0.1 * np.random.default_rng(0).standard_normal((48_000, 2)))
    cut.write_bytes(cut.read_bytes()[:30])
    problems = {
        tmp_path / "missing.wav": "does not exist",
        tmp_path: "not a file",
        text: "cannot be read",
        empty: "no sound",
        short: "shorter than 40 ms",
        broken: "not numbers",
        endless: "is 601 seconds long; at most 600 can be used",
        longer: "is 11 minutes long; at most 10 can be used",
        slow: "100 samples a second",
        cut: "cannot be read",
    }
    for path, problem in problems.items():
        with pytest.raises(InvalidInputError, match=problem) as caught:
            read_clip(path)
        assert caught.value.source == path
