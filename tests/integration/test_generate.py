"""The command that musicians run: files of exactly what was asked for, and a sentence for everything else."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

TIMEOUT_S = 120


def _run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acestep", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def _songs(*arguments: str, folder: Path, **environment: str) -> dict[str, Any]:
    done = _run("generate", "--model", "tiny", "--json", *arguments, folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_songs_are_two_exact_files_and_a_seed_is_a_song(tmp_path: Path) -> None:
    # A card that is only planned for has room for a batch; the run itself is on whatever is here.
    wish = ("--caption", "slow piano", "--duration", "10", "--steps", "2", "--no-think")
    room = {"MAX_CUDA_VRAM": "8"}
    batch = _songs(*wish, "--batch", "2", "--seed", "7", "--out", "pair", folder=tmp_path, **room)
    alone = _songs(*wish, "--batch", "1", "--seed", "8", "--out", "alone", folder=tmp_path, **room)
    assert [song["seed"] for song in batch["songs"]] == [7, 8]
    for song in batch["songs"]:
        path = tmp_path / song["path"]
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames, info.format) == (48_000, 2, 480_000, "FLAC")
        assert song["peak_dbfs"] == pytest.approx(-1.0, abs=0.01)
        assert song["duration_s"] == 10.0
    assert _digest(tmp_path / batch["songs"][1]["path"]) == _digest(tmp_path / alone["songs"][0]["path"])
    assert {stage["name"] for stage in batch["stages"]} == {"encode", "denoise", "decode"}
    assert any("noise" in sentence for sentence in batch["warnings"])
    assert batch["songs_per_pass"] == 2


def test_what_is_too_much_is_cut_with_a_sentence(tmp_path: Path) -> None:
    document = _songs(
        "--caption", "x", "--lyrics", "y" * 3_000, "--duration", "3", "--batch", "9", "--steps", "1", folder=tmp_path
    )
    assert any("noise" in sentence for sentence in document["warnings"])
    asked = [sentence for sentence in document["warnings"] if "batch of 9 was cut" in sentence]
    assert asked
    assert any("lyrics came to" in sentence for sentence in document["warnings"])
    assert "tier" in asked[0]
    assert len(document["songs"]) < 9


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("generate", "--caption", "x", "--duration", "0"), 2, "duration"),
        (("generate", "--caption", "x", "--duration", "nan"), 2, "duration"),
        (("generate", "--caption", "x", "--seed", "-1"), 2, "seed"),
        (("generate", "--model", "tiny", "--caption", "x", "--format", "ogg"), 2, "ogg"),
        (("generate", "--caption", "x", "--model", "no-such-model"), 2, "no-such-model"),
        (("generate", "--caption", "x", "--lyrics", "@missing.txt"), 3, "missing.txt"),
        (("generate", "--caption", "x", "--model", "turbo"), 3, "acestep download"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = _run(*arguments, folder=tmp_path, ACESTEP_CHECKPOINTS_DIR=str(tmp_path / "none"), HF_HUB_OFFLINE="1")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
