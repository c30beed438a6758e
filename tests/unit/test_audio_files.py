"""Audio files as other programs write them: wrong headers, foreign formats, small files that unpack to gigabytes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep.audio.formats import GUESSED, readable_formats
from acestep.audio.read import read_clip
from acestep.clip import SAMPLE_RATE
from acestep.errors import InvalidInputError
from acestep.units import MIB

SAID_SAMPLES = slice(21, 26)
"""Bytes of a FLAC file whose last 36 bits say how many samples there are."""


def _noise(seconds: float, channels: int = 2) -> np.ndarray:
    samples = int(seconds * SAMPLE_RATE)
    return np.asarray(0.1 * np.random.default_rng(7).standard_normal((samples, channels)).clip(-1, 1))


def _flac_that_says(path: Path, seconds: float, samples: int) -> Path:
    """A FLAC file of that length, whose header says that it has that many samples."""
    soundfile.write(path, _noise(seconds), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    kept = int.from_bytes(content[SAID_SAMPLES], "big") >> 36 << 36
    content[SAID_SAMPLES] = (kept | samples).to_bytes(5, "big")
    path.write_bytes(content)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_clip(path)
    return str(caught.value)


@pytest.mark.parametrize("said", [0, 1, SAMPLE_RATE, 3 * SAMPLE_RATE, (1 << 36) - 1])
def test_a_flac_file_is_read_to_its_end_whatever_its_header_says(tmp_path: Path, said: int) -> None:
    honest = read_clip(_flac_that_says(tmp_path / "honest.flac", 2.0, 2 * SAMPLE_RATE))
    found = read_clip(_flac_that_says(tmp_path / "found.flac", 2.0, said))
    assert np.array_equal(found.audio, honest.audio)


def test_a_file_that_ends_early_is_used_and_called_incomplete(tmp_path: Path) -> None:
    clip = read_clip(_flac_that_says(tmp_path / "cut.flac", 2.0, 30 * SAMPLE_RATE))
    assert clip.duration_s == pytest.approx(2.0)
    assert "incomplete" in " ".join(clip.remarks)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_wav_file_of_any_sample_format_sounds_the_same(tmp_path: Path, subtype: str) -> None:
    audio = _noise(0.5)
    soundfile.write(tmp_path / "a.wav", audio, SAMPLE_RATE, subtype=subtype)
    assert np.abs(read_clip(tmp_path / "a.wav").audio - audio.T).max() <= 2**-15


@pytest.mark.parametrize("size", [0, 2**32 - 1, 2**31 - 2**12])
def test_a_wav_file_without_the_size_of_its_sound_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    # A program that streams writes the largest size or 0, and so does one that was ended.
    soundfile.write(tmp_path / "a.wav", _noise(0.5), SAMPLE_RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    for whole in (size, len(content) - 8):
        content[4:8] = whole.to_bytes(4, "little")
        (tmp_path / "b.wav").write_bytes(content)
        clip = read_clip(tmp_path / "b.wav")
        assert np.array_equal(clip.audio, read_clip(tmp_path / "a.wav").audio)
        assert clip.remarks == ()


def test_a_wav_file_without_sound_is_not_read_as_its_own_notes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), SAMPLE_RATE)
    content = (tmp_path / "a.wav").read_bytes()[:44]
    (tmp_path / "a.wav").write_bytes(content + b"LIST" + (8_000).to_bytes(4, "little") + bytes(8_000))
    assert "no sound" in _refusal(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "MS_ADPCM"), ("AIFF", "PCM_24"), ("AIFF", "FLOAT")]
)
def test_a_file_that_was_cut_short_is_called_incomplete_in_every_format(
    tmp_path: Path, kind: str, subtype: str
) -> None:
    soundfile.write(tmp_path / "whole", _noise(4.0), SAMPLE_RATE, format=kind, subtype=subtype)
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    assert read_clip(tmp_path / "whole").remarks == ()
    (told,) = read_clip(tmp_path / "cut").remarks
    assert "says that it is 4 s long, but it ends after 2 s: it is incomplete" in told


@pytest.mark.parametrize("rate", [352_800, 384_000, 768_000])
def test_the_rates_of_studios_are_read(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((rate, 1)), rate)
    assert read_clip(tmp_path / "a.wav").duration_s == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [1, 3_999, 768_001, 2**31 - 1])
def test_a_rate_that_no_music_has_is_refused_with_a_command(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 1)), rate)
    assert f"{rate} samples a second" in _refusal(tmp_path / "a.wav")
    assert "ffmpeg -i a.wav -ar 48000 a.flac" in _refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", GUESSED)
def test_no_suffix_makes_sound_of_bytes_without_a_header(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"noise{suffix}").write_bytes(np.random.default_rng(1).bytes(48_000))
    assert "ffmpeg" in _refusal(tmp_path / f"noise{suffix}")
    # The suffix does no harm to a file that has one.
    soundfile.write(tmp_path / "a.au", _noise(0.5), SAMPLE_RATE, format="AU")
    (tmp_path / f"sound{suffix}").write_bytes((tmp_path / "a.au").read_bytes())
    assert read_clip(tmp_path / f"sound{suffix}").duration_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b"PK\x03\x04" + bytes(60), "archive"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "picture"),
        (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(60), "picture"),
        (b"MThd" + bytes(60), "MIDI"),
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ""])
def test_a_file_that_is_no_recording_is_called_what_it_is(
    tmp_path: Path, content: bytes, told: str, suffix: str
) -> None:
    (tmp_path / f"song{suffix}").write_bytes(content)
    refused = _refusal(tmp_path / f"song{suffix}")
    assert told in refused
    assert "ffmpeg" not in refused


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".raw"])
@pytest.mark.parametrize("content", [b"la la la", b"fLaC" + bytes(9), b"ID3\4\0\0\0\0\0\0", b"OggS" + bytes(60)])
def test_a_refusal_says_what_is_read_and_never_how_it_was_tried(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"song{suffix}").write_bytes(content)
    refused = _refusal(tmp_path / f"song{suffix}")
    assert "ffmpeg" in refused
    assert "object at" not in refused
    assert refused.count(str(tmp_path)) == 1


def test_a_file_that_the_system_refuses_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "too long" in _refusal(tmp_path / ("x" * 300))
    soundfile.write(tmp_path / "a.wav", _noise(0.5), SAMPLE_RATE)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.wav"))

    for function in ("open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, function, refuse)
            assert _refusal(tmp_path / "a.wav").endswith("a.wav: cannot be read (Permission denied)")


@pytest.mark.parametrize("suffix", [".raw", ".pcm", ".RAW"])
def test_samples_without_a_header_are_refused_with_a_command_that_adds_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"song{suffix}"
    path.write_bytes(os.urandom(48_000))
    assert "ffmpeg" in _refusal(path)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00", "M4A"),
        (b"\x1a\x45\xdf\xa3" + bytes(60), "WebM"),
        (b"\xff\xf1\x50\x80" + bytes(60), "AAC"),
        (b"\x00\x00\x00\x08wide" + bytes(60), "QuickTime"),
        (b"\x0b\x77" + bytes(60), "AC-3"),
    ],
)
@pytest.mark.parametrize("suffix", [".m4a", ".wav", ""])
def test_an_unreadable_format_is_named_whatever_the_suffix(
    tmp_path: Path, content: bytes, name: str, suffix: str
) -> None:
    path = tmp_path / f"it's a song{suffix}"
    path.write_bytes(content)
    refused = _refusal(path)
    assert name in refused
    assert readable_formats() in refused
    assert "ffmpeg" in refused


def test_a_readable_file_is_read_whatever_the_suffix(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", _noise(0.5), SAMPLE_RATE)
    for name in ("a.m4a", "a.raw", "a"):
        (tmp_path / name).write_bytes((tmp_path / "a.flac").read_bytes())
        assert read_clip(tmp_path / name).duration_s == pytest.approx(0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_a_file_whose_name_is_no_utf_8_is_read(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"a{suffix}", _noise(0.5), SAMPLE_RATE)
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfcber" + suffix.encode()))
    (tmp_path / f"a{suffix}").rename(named)
    assert read_clip(named).duration_s == pytest.approx(0.5, abs=0.05)


def test_a_pipe_or_device_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a file" in _refusal(tmp_path / "pipe.wav")
    assert "not a file" in _refusal(Path("/dev/zero"))
    assert "not a file" in _refusal(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "0 bytes" in _refusal(tmp_path / "empty.wav")


@pytest.mark.parametrize("said", [0, 11 * 60 * SAMPLE_RATE])
def test_a_small_file_that_unpacks_to_much_takes_no_more_memory_than_ten_minutes(tmp_path: Path, said: int) -> None:
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2) as file:
        for _ in range(11):
            file.write(np.zeros((60 * SAMPLE_RATE, 2), dtype=np.int16))
    content = bytearray(path.read_bytes())
    kept = int.from_bytes(content[SAID_SAMPLES], "big") >> 36 << 36
    content[SAID_SAMPLES] = (kept | said).to_bytes(5, "big")
    path.write_bytes(content)
    assert path.stat().st_size < MIB
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import soundfile\n"
        "from acestep.audio.read import read_clip\n"
        "from acestep.errors import InvalidInputError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    read_clip(Path(sys.argv[1]))\n"
        "except InvalidInputError as error:\n"
        "    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    taken, _, told = done.stdout.partition(" ")
    assert "at most" in told
    assert int(taken) < 1.2 * 600 * SAMPLE_RATE * 2 * 4
