"""Recordings whose headers give no length or a wrong one, and recordings that end early, in every format."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep.audio.read import read_clip, said_seconds
from acestep.clip import SAMPLE_RATE
from acestep.errors import InvalidInputError
from acestep.request import MAX_DURATION_S
from acestep.units import minutes

SECONDS = 3.0
KINDS = (
    *(("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("WAV", "IMA_ADPCM"), ("RF64", "PCM_16"), ("W64", "PCM_16")),
    *(("AU", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("FLAC", "PCM_16")),
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
)
ID3_AT_THE_END = b"TAG" + bytes(125)


def _content(path: Path, kind: str, subtype: str) -> bytes:
    audio = 0.1 * np.random.default_rng(7).standard_normal((int(SECONDS * SAMPLE_RATE), 2)).clip(-3, 3)
    soundfile.write(path, audio, SAMPLE_RATE, format=kind, subtype=subtype)
    return path.read_bytes()


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_a_file_that_is_cut_in_half_is_used_and_called_incomplete(tmp_path: Path, kind: str, subtype: str) -> None:
    path = tmp_path / "song"
    content = _content(path, kind, subtype)
    assert read_clip(path).remarks == ()
    path.write_bytes(content[: len(content) // 2])
    clip = read_clip(path)
    assert 0.5 < clip.duration_s < 0.6 * SECONDS
    assert ["incomplete" in remark for remark in clip.remarks] == [True]


@pytest.mark.parametrize(("kind", "subtype"), [kind for kind in KINDS if kind[0] not in ("W64", "WAVEX")])
def test_a_tag_behind_the_sound_does_no_harm(tmp_path: Path, kind: str, subtype: str) -> None:
    path = tmp_path / "song"
    content = _content(path, kind, subtype)
    path.write_bytes(content + ID3_AT_THE_END)
    clip = read_clip(path)
    assert clip.duration_s == pytest.approx(SECONDS, abs=0.05)
    assert clip.remarks == ()


@pytest.mark.parametrize(
    ("kind", "mark", "after", "width", "order"),
    [
        ("AU", b".snd", 8, 4, "big"),
        ("CAF", b"data", 4, 8, "big"),
        ("RF64", b"ds64", 16, 8, "little"),
        ("W64", b"data", 16, 8, "little"),
        ("AIFF", b"SSND", 4, 4, "big"),
        ("WAV", b"data", 4, 4, "little"),
    ],
)
@pytest.mark.parametrize("size", ["none", "largest", "stream"])
def test_a_file_without_the_size_of_its_sound_is_read_to_its_end(
    tmp_path: Path, kind: str, mark: bytes, after: int, width: int, order: str, size: str
) -> None:
    path = tmp_path / "song"
    content = bytearray(_content(path, kind, "PCM_16"))
    expected = read_clip(path).audio
    said = {"none": 0, "largest": (1 << 8 * width) - 1, "stream": (1 << 8 * width - 1) - 1}[size]
    at = content.index(mark) + after
    content[at : at + width] = said.to_bytes(width, "big" if order == "big" else "little")
    path.write_bytes(content)
    clip = read_clip(path)
    assert clip.duration_s == pytest.approx(SECONDS, abs=0.001)
    assert np.array_equal(clip.audio[:, :SAMPLE_RATE], expected[:, :SAMPLE_RATE])
    assert clip.remarks == ()


@pytest.mark.parametrize(
    ("field", "value"), [(0, bytes(4)), (8, bytes(4)), (8, b"\0\0\0\1"), (4, bytes(4)), (0, bytes(80))]
)
def test_an_mp3_file_is_read_to_its_end_without_a_length(tmp_path: Path, field: int, value: bytes) -> None:
    path = tmp_path / "song"
    # Loud and then quiet: a guess from the first frames is too short.
    audio = np.random.default_rng(7).standard_normal((int(SECONDS * SAMPLE_RATE), 2)).clip(-1, 1)
    audio[: SAMPLE_RATE // 4] *= 0.0
    soundfile.write(path, audio, SAMPLE_RATE, format="MP3")
    content = bytearray(path.read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info")) + field
    content[at : at + len(value)] = value
    path.write_bytes(content)
    assert read_clip(path).duration_s == pytest.approx(SECONDS, abs=0.1)


def test_mp3_files_that_were_joined_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "song"
    path.write_bytes(2 * _content(path, "MP3", "MPEG_LAYER_III"))
    assert read_clip(path).duration_s == pytest.approx(2 * SECONDS, abs=0.2)


def test_a_flac_file_without_a_length_may_begin_with_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "song"
    content = bytearray(_content(path, "FLAC", "PCM_16"))
    content[21:26] = (int.from_bytes(content[21:26], "big") >> 36 << 36).to_bytes(5, "big")
    path.write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128) + content)
    assert read_clip(path).duration_s == pytest.approx(SECONDS)


def test_damage_in_the_middle_keeps_what_is_before_it(tmp_path: Path) -> None:
    path = tmp_path / "song"
    content = bytearray(_content(path, "FLAC", "PCM_16"))
    content[len(content) * 9 // 10 :] = bytes(len(content) - len(content) * 9 // 10)
    path.write_bytes(content)
    clip = read_clip(path)
    assert clip.duration_s == pytest.approx(0.9 * SECONDS, abs=0.1)
    assert ["only its first 2." in remark for remark in clip.remarks] == [True]
    path.write_bytes(content[:2_000])
    with pytest.raises(InvalidInputError, match="cannot be read at all"):
        read_clip(path)


def test_a_length_is_written_without_exponent() -> None:
    assert minutes(1e9 + 45.25) == "16666667 min 25.2 s"


def test_the_length_that_a_header_says_is_known_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "song"
    content = bytearray(_content(path, "FLAC", "PCM_16"))
    assert said_seconds(path) == pytest.approx(SECONDS)
    content[21:26] = (int.from_bytes(content[21:26], "big") >> 36 << 36).to_bytes(5, "big")
    path.write_bytes(content)
    assert said_seconds(path) == MAX_DURATION_S
    for name in ("song.raw", "song.au", "song.wav"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 100)
        assert said_seconds(tmp_path / name) == 0.0
