"""A file of several recordings, one after another: the first is used, and the user is told."""

import errno
import mmap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep.audio.joined import holds_several
from acestep.audio.read import read_clip

RATE = 48_000


def recording(path: Path, seconds: float, **how: str) -> bytes:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (round(RATE * seconds), 2))
    soundfile.write(path, noise, RATE, **how)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("song.flac", {}),
        ("song.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("song.opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
    ids=["flac", "vorbis", "opus"],
)
def test_of_joined_recordings_the_first_is_used_with_a_warning(name: str, how: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / name
    first, second = recording(path, 2, **how), recording(path, 3, **how)
    path.write_bytes(first)
    alone = read_clip(path)
    assert (holds_several(path), alone.remarks) == (False, ())
    path.write_bytes(first + second)
    clip = read_clip(path)
    assert clip.duration_s == pytest.approx(2, abs=0.05)
    assert clip.remarks == (f"{name} holds several recordings, one after another: only the first, 2 s, is used.",)


@pytest.mark.parametrize("name", ["song.wav", "song.mp3", "song.aiff"])
def test_other_files_hold_one(name: str, tmp_path: Path) -> None:
    recording(tmp_path / name, 1)
    assert not holds_several(tmp_path / name)
    assert read_clip(tmp_path / name).remarks == ()


@pytest.mark.parametrize("problem", [OSError(errno.ENODEV, "No such device"), ValueError("cannot mmap")])
def test_a_file_system_that_maps_no_files_is_read_without_the_warning(
    problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise problem

    recording(tmp_path / "song.flac", 1)
    monkeypatch.setattr(mmap, "mmap", refuse)
    clip = read_clip(tmp_path / "song.flac")
    assert (clip.duration_s, clip.remarks) == (1, ())
