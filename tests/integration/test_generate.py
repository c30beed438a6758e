"""The command for musicians: files of exactly what was requested, and a sentence for every problem."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from acestep.cli import console
from acestep.cli.main import cli
from tests.forked import run_module

RATE = 44_100
TINY = ("generate", "--model", "tiny", "--json")


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Acestep:
    """`acestep` in a folder of its own, where the songs are left too."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        """Run a command in this process: a new one takes longer to import everything than to make a tiny song."""
        self._capsys.readouterr()
        return Said(console.run_click(cli, arguments), *self._capsys.readouterr())

    def songs(self, *arguments: str) -> dict[str, Any]:
        """The document about songs that were made."""
        return _document(self(*TINY, *arguments))

    def songs_of_another_process(self, *arguments: str) -> dict[str, Any]:
        """The same, from a process of its own, which is in another folder."""
        root = Path(__file__).parents[2]
        return _document(Said(*run_module(root, "acestep", [*TINY, *arguments], self._folder)))


def _document(said: Said) -> dict[str, Any]:
    assert said.code == 0, said.err
    document: dict[str, Any] = json.loads(said.out)
    return document


@pytest.fixture
def acestep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Acestep:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_CHECKPOINTS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)
    return Acestep(tmp_path, capsys)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_two_songs_are_two_exact_files_and_a_seed_is_a_song_in_every_process(
    acestep: Acestep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A card that is only planned for has room for a batch; the run itself is on whatever is here.
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    wish = ("--caption", "slow piano", "--duration", "10", "--steps", "2", "--no-think")
    batch = acestep.songs(*wish, "--batch", "2", "--seed", "7", "--out", "pair")
    alone = acestep.songs_of_another_process(*wish, "--batch", "1", "--seed", "8", "--out", str(tmp_path / "alone"))
    assert [song["seed"] for song in batch["songs"]] == [7, 8]
    for song in batch["songs"]:
        info = soundfile.info(song["path"])
        assert (info.samplerate, info.channels, info.frames, info.format) == (48_000, 2, 480_000, "FLAC")
        assert song["peak_dbfs"] == pytest.approx(-1.0, abs=0.01)
        assert song["duration_s"] == 10.0
    assert _digest(batch["songs"][1]["path"]) == _digest(alone["songs"][0]["path"])
    assert {stage["name"] for stage in batch["stages"]} == {"encode", "denoise", "decode"}
    assert any("noise" in sentence for sentence in batch["warnings"])
    assert batch["songs_per_pass"] == 2


def test_what_is_too_much_is_cut_with_a_sentence(acestep: Acestep) -> None:
    document = acestep.songs(
        "--caption", "x", "--lyrics", "y" * 3_000, "--duration", "3", "--batch", "9", "--steps", "1"
    )
    assert any("noise" in sentence for sentence in document["warnings"])
    asked = [sentence for sentence in document["warnings"] if "batch of 9 was cut" in sentence]
    assert asked
    assert any("lyrics came to" in sentence for sentence in document["warnings"])
    assert "tier" in asked[0]
    assert len(document["songs"]) < 9


def test_a_mono_recording_is_worked_on_at_its_own_length(acestep: Acestep) -> None:
    soundfile.write("voice.wav", 0.3 * np.sin(np.arange(2 * RATE) / 20), RATE)
    document = acestep.songs(
        "--caption", "x", "--steps", "1", "--task", "lego", "--src-audio", "voice.wav", "--track", "drums"
    )
    (song,) = document["songs"]
    assert song["duration_s"] == 2.0
    assert soundfile.info(song["path"]).frames == 96_000
    assert [stage["name"] for stage in document["stages"]] == ["encode_audio", "encode", "denoise", "decode"]
    assert any("base models" in sentence for sentence in document["warnings"])


def test_codes_become_a_song_of_their_length(acestep: Acestep) -> None:
    codes = "".join(f"<|audio_code_{code}|>" for code in range(0, 60_000, 8_000))
    document = acestep.songs("--caption", "x", "--steps", "1", "--audio-codes", codes)
    assert document["songs"][0]["duration_s"] == 1.6
    assert not any("base models" in sentence for sentence in document["warnings"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--duration", "0"), 2, "duration"),
        (("--duration", "nan"), 2, "duration"),
        (("--seed", "-2"), 2, "seed"),
        (("--model", "tiny", "--format", "ogg"), 2, "ogg"),
        (("--model", "no-such-model"), 2, "no-such-model"),
        (("--lyrics", "@missing.txt"), 3, "missing.txt"),
        (("--model", "turbo"), 3, "acestep download"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    acestep: Acestep, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = acestep("generate", "--caption", "x", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


@pytest.mark.parametrize("model", ["no-such-model", "turbo"])
def test_a_model_that_is_not_here_is_told_before_torch_is_imported(
    acestep: Acestep, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is None cannot be imported; the pipeline's own modules may have been by other tests.
    for module in ("torch", "acestep.api"):
        monkeypatch.setitem(sys.modules, module, None)
    assert acestep("generate", "--caption", "x", "--model", model).code in (2, 3)


def test_what_was_done_to_a_recording_is_told_with_the_song(acestep: Acestep, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "film.wav", np.zeros((2 * RATE, 6)), RATE)
    source = ("--task", "cover", "--src-audio", str(tmp_path / "film.wav"))
    made = acestep.songs("--caption", "slow piano", "--steps", "1", *source)
    assert any("film.wav has 6 channels" in warning for warning in made["warnings"])


def test_a_song_made_again_from_its_file_is_the_same(acestep: Acestep) -> None:
    wish = ("--caption", "slow piano", "--lyrics", "la la", "--duration", "1", "--steps", "1", "--think")
    made = acestep.songs(*wish, "--batch", "2", "--seed", "7", "--out", "first")
    second = made["songs"][1]
    (again,) = acestep.songs("--like", second["path"], "--out", "again")["songs"]
    assert Path(again["path"]).read_bytes() == Path(second["path"]).read_bytes()
