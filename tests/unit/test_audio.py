"""Songs are written whole, at -1 dBFS, and never over another song."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep.audio import write as audio
from acestep.errors import RunFailedError, UsageError

RATE = 48_000
TAGS = {"title": "A song", "comment": "how"}


def _tone(peak: float) -> np.ndarray:
    return (peak * np.sin(np.linspace(0, 300, 2 * RATE, dtype=np.float32))).reshape(2, RATE)


@pytest.mark.parametrize("peak", [0.01, 1.0, 37.0])
def test_the_peak_is_one_decibel_below_full_scale(peak: float) -> None:
    normalised = audio.normalise(_tone(peak))
    assert audio.peak_dbfs(normalised) == pytest.approx(-1.0, abs=1e-3)
    assert normalised.dtype == np.float32


def test_silence_stays_silent() -> None:
    silence = np.zeros((2, RATE), dtype=np.float32)
    assert not audio.normalise(silence).any()
    assert audio.peak_dbfs(silence) == -120


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_overflow_is_an_error_with_advice_not_a_file(bad: float) -> None:
    samples = _tone(1.0)
    samples[0, 5] = bad
    with pytest.raises(RunFailedError, match="overflowed"):
        audio.normalise(samples)


@pytest.mark.parametrize("suffix", ["flac", "wav"])
@pytest.mark.parametrize("bits", [16, 24])
def test_a_song_that_keeps_its_level_has_the_samples_of_its_source(tmp_path: Path, suffix: str, bits: int) -> None:
    draw = np.random.default_rng(2)
    whole = draw.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (RATE, 2)).astype(np.int32) << (32 - bits)
    soundfile.write(tmp_path / "source.wav", whole, RATE, subtype=f"PCM_{bits}")
    source = soundfile.read(tmp_path / "source.wav", dtype="float32")[0].T
    path = audio.write_song(tmp_path, "song", suffix, audio.normalise(source, keeps_level=True), RATE, **TAGS)
    assert np.array_equal(soundfile.read(path, dtype="int32")[0], whole)
    with pytest.raises(RunFailedError, match="overflowed"):
        audio.normalise(np.full((2, RATE), np.nan, dtype=np.float32), keeps_level=True)


@pytest.mark.parametrize("suffix", audio.FILE_FORMATS)
def test_a_written_song_reads_back(tmp_path: Path, suffix: str) -> None:
    path = audio.write_song(tmp_path, "song", suffix, audio.normalise(_tone(1.0)), RATE, **TAGS)
    samples, rate = soundfile.read(path)
    assert rate == RATE
    assert samples.shape[1] == 2
    if suffix != "mp3":
        assert samples.shape[0] == RATE
    if suffix not in ("mp3", "opus"):
        assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-1.0, abs=0.01)
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "nothing half-written is left"


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: soundfile.SoundFile, *_: object) -> None:
        assert Path(file.name).exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(RunFailedError, match="disk full"):
        audio.write_song(tmp_path, "song", "flac", _tone(1.0), RATE, **TAGS)
    assert not list(tmp_path.iterdir())


def test_no_song_is_overwritten(tmp_path: Path) -> None:
    def write(_: int) -> str:
        return audio.write_song(tmp_path, "slow-piano-7", "flac", _tone(0.5)[:, :100], RATE, **TAGS).name

    with ThreadPoolExecutor(4) as writers:
        names = sorted(writers.map(write, range(8)), key=lambda name: (len(name), name))
    assert names == ["slow-piano-7.flac", *(f"slow-piano-7-{number}.flac" for number in range(2, 9))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_name_appears_with_all_bytes_of_its_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    link = Path.hardlink_to

    def noted(path: Path, whole: Path) -> None:
        assert not path.exists()
        link(path, whole)
        seen.append((path.name, path.stat().st_size))

    monkeypatch.setattr(Path, "hardlink_to", noted)
    song = audio.write_song(tmp_path, "song", "flac", _tone(0.5), RATE, **TAGS)
    assert seen == [(song.name, song.stat().st_size)]
    assert [path.name for path in tmp_path.iterdir()] == ["song.flac"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_files_have_one_name_only_no_song_is_overwritten_either(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, whole: Path) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for _ in range(2):
        audio.write_song(tmp_path, "song", "flac", _tone(0.5), RATE, **TAGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song-2.flac", "song.flac"]
    assert all(path.stat().st_size > 1_000 for path in tmp_path.iterdir())


def test_what_a_killed_run_left_is_removed_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    kept = [f".{os.getpid()}-x.part", ".mine.part", "song.part", f".{ended.pid}-x.partial"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / f".{ended.pid}-half.part").mkdir()
    (tmp_path / f".{ended.pid}-half.part" / "song.flac").write_bytes(b"half")
    (tmp_path / f".{ended.pid}-probe.part").touch()
    audio.open_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("slow piano", "slow-piano-7"),
        ("느린 피아노, 비", "느린-피아노-비-7"),
        ("../../etc/passwd", "etc-passwd-7"),
        ("", "song-7"),
        ("x" * 300, "x" * 40 + "-7"),
    ],
)
def test_file_names_come_from_captions_and_stay_in_their_folder(caption: str, expected: str) -> None:
    assert audio.stem(caption, 7) == expected


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFailedError, match="--out"):
        audio.open_folder(tmp_path / "file")


def test_a_folder_whose_name_no_document_could_hold_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--out") as caught:
        audio.open_folder(tmp_path / os.fsdecode(b"songs-\xff"))
    assert str(caught.value).encode(), "the refusal itself can be shown"
    assert not list(tmp_path.iterdir())


def test_a_format_that_the_library_cannot_write_is_refused_with_those_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "check_format", lambda container, subtype: container == "FLAC")
    audio.require_writable("flac")
    with pytest.raises(UsageError, match=r"cannot write opus; choose one of flac$"):
        audio.require_writable("opus")


def test_samples_of_32_bits_are_kept_as_they_are(tmp_path: Path) -> None:
    song = audio.normalise(_tone(0.5))
    path = audio.write_song(tmp_path, "song", "wav32", song, RATE, **TAGS)
    assert path.suffix == ".wav"
    assert np.array_equal(soundfile.read(path, dtype="float32")[0], song.T)
