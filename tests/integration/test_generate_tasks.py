"""A recording in, songs out: the command on a musician's own files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 44_100


def _generate(*arguments: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "acestep", "generate", "--model", "tiny", "--steps", "1", "--json"]
    done = subprocess.run(
        [*command, "--caption", "x", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_mono_recording_is_worked_on_at_its_own_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "voice.wav", 0.3 * np.sin(np.arange(2 * RATE) / 20), RATE)
    document = _generate("--task", "lego", "--src-audio", "voice.wav", "--track", "drums", folder=tmp_path)
    (song,) = document["songs"]
    assert song["duration_s"] == 2.0
    assert soundfile.info(tmp_path / song["path"]).frames == 96_000
    assert [stage["name"] for stage in document["stages"]] == ["encode_audio", "encode", "denoise", "decode"]
    assert any("base models" in sentence for sentence in document["warnings"])


def test_codes_become_a_song_of_their_length(tmp_path: Path) -> None:
    codes = "".join(f"<|audio_code_{code}|>" for code in range(0, 60_000, 8_000))
    document = _generate("--audio-codes", codes, folder=tmp_path)
    assert document["songs"][0]["duration_s"] == 1.6
    assert not any("base models" in sentence for sentence in document["warnings"])
