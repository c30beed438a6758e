"""The options of `acestep generate` about tasks and files become the request, and nothing is guessed silently."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from acestep.cli.console import run_click
from acestep.cli.main import cli
from acestep.errors import Exit
from acestep.request import MAX_AUDIO_CODE, Request, Task
from tests.acestep_command import stand_in_for_models

CODES = "".join(f"<|audio_code_{code}|>" for code in (5, 6, 7, 8, 99_999))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that reached the part that loads models."""
    requests: list[Request] = []

    def run_generate(request: Request, **_: Any) -> dict[str, Any]:
        requests.append(request)
        return {"songs": [], "warnings": []}

    stand_in_for_models(monkeypatch, run_generate)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return requests


@pytest.fixture
def song(tmp_path: Path) -> str:
    path = tmp_path / "song.wav"
    soundfile.write(path, np.zeros(3 * 8_000), 8_000)
    return str(path)


def _generate(*arguments: str) -> int:
    return run_click(cli, ["generate", "--caption", "x", *arguments])


@pytest.mark.parametrize("flag", ["--src-audio", "--reference-audio"])
def test_a_file_without_a_name_is_no_folder(
    asked: list[Request], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _generate("--task", "cover", flag, "") == Exit.USAGE
    assert flag in capsys.readouterr().err
    assert not asked


def test_every_option_arrives(asked: list[Request], song: str) -> None:
    window = ("--repaint-start", "0.5", "--repaint-end", "2", "--reference-audio", song)
    window += ("--repaint-strength", "0.3", "--repaint-fade", "0.2")
    assert _generate("--task", "repaint", "--src-audio", song, *window) == Exit.OK
    assert (
        _generate("--task", "cover", "--src-audio", song, "--cover-strength", "0.4", "--cover-noise", "0.2") == Exit.OK
    )
    assert _generate("--task", "extract", "--src-audio", song, "--track", "vocals") == Exit.OK
    assert _generate("--task", "complete", "--src-audio", song, "--tracks", "bass, drums") == Exit.OK
    assert _generate("--guidance-interval", "0.1", "0.9", "--no-think") == Exit.OK
    assert _generate("--no-dcw", "--dcw-scaler", "0.1", "--dcw-high-scaler", "0.3") == Exit.OK
    repaint, cover, extract, complete, plain, uncorrected = asked
    assert (repaint.task, repaint.repaint_start_s, repaint.repaint_end_s) == (Task.REPAINT, 0.5, 2.0)
    assert (repaint.repaint_strength, repaint.repaint_fade_s, repaint.duration_s) == (0.3, 0.2, 3.0)
    assert repaint.reference_audio is not None
    assert repaint.source_audio is not None
    assert repaint.source_audio.audio.shape == (2, 3 * 48_000)
    assert (cover.cover_strength, cover.cover_noise, cover.song_frames) == (0.4, 0.2, 75)
    assert (uncorrected.dcw, uncorrected.dcw_scaler, uncorrected.dcw_high_scaler) == (False, 0.1, 0.3)
    assert plain.dcw is None
    assert extract.track == "vocals"
    assert complete.tracks == ("bass", "drums")
    assert (plain.task, plain.guidance_interval, plain.duration_s) == (Task.TEXT2MUSIC, (0.1, 0.9), 60.0)


def test_codes_are_text_or_a_file_and_mean_a_cover(asked: list[Request], tmp_path: Path) -> None:
    file = tmp_path / "codes.txt"
    file.write_text(CODES)
    assert _generate("--audio-codes", CODES) == Exit.OK
    assert _generate("--task", "cover", "--audio-codes", f"@{file}") == Exit.OK
    for request in asked:
        assert request.task is Task.COVER
        assert request.audio_codes == (5, 6, 7, 8, MAX_AUDIO_CODE)
        assert request.duration_s == 1.0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--task cover", Exit.USAGE, "it needs --src-audio"),
        ("--task dance", Exit.USAGE, "repaint"),
        ("--src-audio SONG", Exit.USAGE, "--src-audio is for a task"),
        ("--task text2music --src-audio SONG", Exit.USAGE, "--src-audio is for"),
        ("--task extract --src-audio SONG", Exit.USAGE, "backing_vocals"),
        ("--task lego --src-audio SONG", Exit.USAGE, "backing_vocals"),
        ("--task lego --src-audio SONG --track kazoo", Exit.USAGE, "backing_vocals"),
        ("--task lego --src-audio SONG --track drum", Exit.USAGE, "did you mean 'drums'"),
        ("--task complete --src-audio SONG --tracks bass,kazoo", Exit.USAGE, "backing_vocals"),
        ("--language klingon", Exit.USAGE, "ar az bg"),
        ("--keyscale H", Exit.USAGE, "A to G"),
        ("--timesignature 5/4", Exit.USAGE, "2, 3, 4, 6"),
        ("--task repaint --src-audio SONG --repaint-start 3", Exit.USAGE, "the source ends at 3"),
        ("--task cover --src-audio SONG --duration 4", Exit.USAGE, "longer than the 3 seconds"),
        ("--task cover --src-audio SONG --track drums", Exit.USAGE, "--track is for"),
        ("--audio-codes la", Exit.USAGE, "<|audio_code_123|>"),
        ("--audio-codes @missing.txt", Exit.INVALID, "missing.txt"),
        ("--task cover --src-audio missing.wav", Exit.INVALID, "missing.wav: does not exist"),
        ("--guidance-interval 0.9 0.1", Exit.USAGE, "--guidance-interval"),
    ],
)
def test_what_cannot_be_done_ends_before_a_model_is_loaded(
    asked: list[Request], song: str, capsys: pytest.CaptureFixture[str], arguments: str, code: Exit, said: str
) -> None:
    assert _generate(*arguments.replace("SONG", song).split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert asked == []


@pytest.mark.parametrize("command", ["understand", "generate --caption x"])
@pytest.mark.parametrize("codes", ["", " "])
def test_audio_codes_that_are_empty_are_not_left_out_silently(
    asked: list[Request], capsys: pytest.CaptureFixture[str], command: str, codes: str
) -> None:
    # An unset shell variable produces them.
    assert run_click(cli, [*command.split(), "--audio-codes", codes]) == Exit.USAGE
    assert "--audio-codes has no codes" in capsys.readouterr().err
    assert not asked


@pytest.mark.parametrize("command", ["understand --src-audio SONG", "codes SONG"])
def test_a_recording_that_is_too_short_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setitem(sys.modules, "acestep.api", None)
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(4_000), 8_000)
    assert run_click(cli, [*command.replace("SONG", str(path)).split(), "--model", "tiny"]) == Exit.USAGE
    assert "must last 1 to 3600 seconds, got 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "a song", "--language", "klingon"], "language must be one of"),
        (["format", "--caption", "x", "--duration", "-2"], "--duration must be 1 to 600"),
        (["format", "--caption", "x", "--bpm", "7"], "--bpm must be 30 to 300"),
    ],
)
def test_words_are_asked_for_only_with_values_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.setitem(sys.modules, "acestep.lm.songwriting", None)
    assert run_click(cli, [*arguments, "--model", "tiny"]) == Exit.USAGE
    assert said in capsys.readouterr().err
