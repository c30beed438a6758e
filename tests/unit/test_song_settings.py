"""A song's file says how it was made, in words that other programs read too, and the command reads it back."""

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acestep.audio.comments import comment_in
from acestep.audio.write import write_song
from acestep.cli import console
from acestep.cli.main import cli
from acestep.errors import InvalidInputError
from acestep.knobs import Knobs, Quantization
from acestep.limits.names import AUDIO_FORMATS
from acestep.request import Request, Task
from acestep.song_settings import settings_in, settings_text
from acestep.thinking import Thinking

SILENCE = np.zeros((2, 4_800), dtype=np.float32)

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300).filter(str.strip)
requests = st.builds(
    Request,
    caption=words,
    lyrics=words,
    duration_s=st.sampled_from([0.0, 2.5, 600.0]),
    seed=st.integers(0, 2**32 - 9),
    batch=st.integers(1, 8),
    bpm=st.sampled_from([0, 30, 300]),
    keyscale=st.sampled_from(["", "A minor"]),
    think=st.booleans(),
    thinking=st.builds(Thinking, metas=st.booleans(), seed=st.integers(0, 2**32 - 1)),
)


def written(folder: Path, suffix: str, comment: str, title: str = "A song") -> Path:
    return write_song(folder, "song", suffix, SILENCE, 48_000, title=title, comment=comment)


@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(request=requests)
def test_what_a_file_says_is_the_request_of_its_song(suffix: str, request: Request, tmp_path: Path) -> None:
    knobs = Knobs(quantization=Quantization.INT8, lm="0.6B")
    path = written(tmp_path, suffix, settings_text(request, request.seed + 1, "turbo", knobs), request.caption)
    found = settings_in(comment_in(path), str(path))
    assert found.model == "turbo"
    assert found.knobs["quantization"] == "int8"
    assert ("lm" in found.knobs) == request.think
    again = msgspec.convert(found.request, Request)
    expected = msgspec.structs.replace(request, seed=request.seed + 1, batch=1)
    assert again == (expected if request.think else msgspec.structs.replace(expected, thinking=Thinking()))


@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
def test_tags_change_no_sample_and_other_programs_read_them(suffix: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    noise = (0.1 * draw.standard_normal((2, 4_801))).astype(np.float32)
    short, long = (
        write_song(tmp_path, "song", suffix, noise, 48_000, title="한국어", comment=comment)
        for comment in ("{}", json.dumps({"lyrics": "가" * 20_000}))
    )
    assert np.array_equal(soundfile.read(short)[0], soundfile.read(long)[0])
    assert soundfile.read(long)[0].shape[0] == (4_801 if suffix != "mp3" else soundfile.info(short).frames)
    if suffix != "wav":
        with soundfile.SoundFile(long) as song:
            assert (song.title, len(json.loads(song.comment)["lyrics"])) == ("한국어", 20_000)
    else:
        # A program that knows no ID3 leaves the chunk out, because the sizes of all chunks add up to the file.
        assert int.from_bytes(long.read_bytes()[4:8], "little") + 8 == long.stat().st_size


STRANGE = [
    "",
    "a comment of another program",
    "[]",
    "{}",
    '{"acestep": "9", "model": "turbo", "knobs": {}, "request": []}',
    "[" * 100_000,
    json.dumps({"acestep": "9", "model": "turbo", "knobs": {}, "request": {}}),
    json.dumps({"acestep": "9", "model": "turbo", "knobs": {}, "request": {"lyrics": 5, "audio_codes": 7}}),
    json.dumps({"acestep": "9", "model": "turbo", "knobs": {"quantization": "?"}, "request": {}}),
]


@pytest.mark.parametrize("comment", STRANGE)
@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
def test_a_file_that_does_not_say_it_is_refused_in_a_sentence(
    suffix: str, comment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, suffix, comment)
    assert console.run_click(cli, ["generate", "--like", str(path)]) == 3
    said = capsys.readouterr().err
    assert str(path) in said
    assert "made" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("damage", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_refused_or_read(damage: float, tmp_path: Path) -> None:
    whole = written(tmp_path, "wav", settings_text(Request(caption="x", duration_s=1), 3, "turbo", Knobs()))
    content = whole.read_bytes()
    whole.write_bytes(content[: round(len(content) * damage)])
    with suppress(InvalidInputError):
        assert settings_in(comment_in(whole), str(whole)).model == "turbo"


def test_a_cover_made_again_asks_for_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from acestep.clip import Clip

    clip = Clip(audio=np.zeros((2, 96_000), dtype=np.float32))
    cover = Request(caption="x", task=Task.COVER, source_audio=clip)
    path = written(tmp_path, "flac", settings_text(cover, 3, "turbo", Knobs()))
    assert console.run_click(cli, ["generate", "--like", str(path)]) == 2
    assert "--src-audio" in capsys.readouterr().err


def test_words_of_a_stranger_name_no_file_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden words")
    song = Request(caption="x", lyrics=f"@{secret}", duration_s=1)
    path = written(tmp_path, "flac", settings_text(song, 3, "tiny", Knobs()))
    out = tmp_path / "out"
    assert console.run_click(cli, ["generate", "--like", str(path), "--out", str(out), "--steps", "1"]) == 0
    (again,) = out.iterdir()
    assert "hidden words" not in str(comment_in(again))
    capsys.readouterr()
