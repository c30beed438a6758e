"""A song's file says how it was made, in words that other programs read too, and the command reads it back."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acestep.audio.comments import comment_in
from acestep.audio.write import FILE_FORMATS, MOST_OGG_COMMENT, write_song
from acestep.cli import console
from acestep.cli.main import cli
from acestep.clip import Clip
from acestep.errors import InvalidInputError
from acestep.knobs import Knobs, Quantization
from acestep.limits.names import AUDIO_FORMATS
from acestep.request import DecodePath, Request, Task
from acestep.result import Result
from acestep.song_settings import settings_in, settings_text
from acestep.stage import Stage, StageReport
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


def said(request: Request, seed: int = 3, *, model: str | None = "tiny", planned: bool = True, **knobs: Any) -> str:
    """What the file of a song says whose request was carried out, with or without its plan."""
    # After planning, the request that is carried out no longer asks for a plan.
    done = msgspec.structs.replace(request, think=False, duration_s=request.duration_s or 60)
    thought = StageReport(name=Stage.THINK, seconds=1, songs_per_pass=1, peak_allocated_bytes=0, peak_reserved_bytes=0)
    stages = (thought,) if request.thinks and planned else ()
    result = Result(request=done, songs=(), stages=stages, songs_per_pass=1, decode_path=DecodePath.GPU, warnings=())
    return settings_text(request, result, seed, model, Knobs(**knobs))


def written(folder: Path, suffix: str, comment: str, title: str = "A song") -> Path:
    return write_song(folder, "song", suffix, SILENCE, 48_000, title=title, comment=comment)


@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests)
def test_what_a_file_says_is_the_request_of_its_song(suffix: str, request: Request, tmp_path: Path) -> None:
    told = said(request, request.seed + 1, model="turbo", quantization=Quantization.INT8, lm="0.6B")
    path = written(tmp_path, suffix, told, request.caption)
    found = settings_in(comment_in(path), str(path))
    assert found.model == "turbo"
    assert found.knobs.quantization is Quantization.INT8
    assert (found.knobs.lm == "0.6B") == request.think
    again = Request(**msgspec.structs.asdict(found.request))
    assert again == msgspec.structs.replace(request, seed=request.seed + 1, batch=1)


@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
def test_another_library_reads_title_and_comment(suffix: str, tmp_path: Path) -> None:
    told = said(Request(caption="비 오는 밤", lyrics="la " * 3_000))
    tags = mutagen.File(written(tmp_path, suffix, told, "비 오는 밤")).tags
    title, comment = (
        next(iter(tags[name])) for name in (("TIT2", "COMM::eng") if "TIT2" in tags else ("title", "comment"))
    )
    assert (title, json.loads(comment)) == ("비 오는 밤", json.loads(told))


@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
def test_tags_change_no_sample_and_other_programs_read_them(suffix: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    noise = (0.1 * draw.standard_normal((2, 4_801))).astype(np.float32)
    words = min(20_000, FILE_FORMATS[suffix].most_comment // len(json.dumps("가")))
    short, long = (
        write_song(tmp_path, "song", suffix, noise, 48_000, title="한국어", comment=comment)
        for comment in ("{}", json.dumps({"lyrics": "가" * words}))
    )
    assert np.array_equal(soundfile.read(short)[0], soundfile.read(long)[0])
    assert soundfile.read(long)[0].shape[0] == (4_801 if suffix != "mp3" else soundfile.info(short).frames)
    if long.suffix != ".wav":
        with soundfile.SoundFile(long) as song:
            assert (song.title, len(json.loads(song.comment)["lyrics"])) == ("한국어", words)
    else:
        # A program that knows no ID3 leaves the chunk out, because the sizes of all chunks add up to the file.
        assert int.from_bytes(long.read_bytes()[4:8], "little") + 8 == long.stat().st_size


def test_an_ogg_file_without_room_for_its_comment_has_none_and_can_be_read(tmp_path: Path) -> None:
    kept, left_out = (written(tmp_path, "opus", "x" * size) for size in (MOST_OGG_COMMENT, MOST_OGG_COMMENT + 1))
    assert comment_in(kept) == "x" * MOST_OGG_COMMENT
    assert (comment_in(left_out) or "").strip() == ""
    assert soundfile.info(kept).frames == soundfile.info(left_out).frames == SILENCE.shape[1]


def test_every_format_that_can_be_chosen_can_be_written() -> None:
    assert tuple(FILE_FORMATS) == AUDIO_FORMATS


def changed(part: str, **values: Any) -> str:
    """A song's settings with other values, in its request, in its knobs, or beside both ("")."""
    whole = json.loads(said(Request(caption="x", duration_s=1)))
    (whole[part] if part else whole).update(values)
    return json.dumps(whole)


STRANGE = [
    "",
    "a comment of another program",
    "[]",
    "{}",
    "[" * 100_000,
    changed("", request=[]),
    changed("", model=5),
    changed("", model="../../weights"),
    changed("", out="elsewhere"),
    changed("knobs", quantization="?"),
    changed("knobs", lyrics="@secret"),
    changed("knobs", audio_codes="@secret"),
    *(changed("request", **{name: "elsewhere"}) for name in ("out", "audio_format", "src_audio", "device", "as_json")),
    changed("request", source_audio="elsewhere"),
    changed("request", batch=[1]),
    changed("request", seed=[1]),
    changed("request", bpm=1e400),
    changed("request", steps=-5),
    changed("request", lyrics=5),
    changed("request", duration_s=10**30),
    changed("request", unknown_field=5),
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


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("suffix", AUDIO_FORMATS)
def test_a_file_cut_short_says_nothing_or_the_same(suffix: str, share: float, tmp_path: Path) -> None:
    whole = written(tmp_path, suffix, said(Request(caption="x", duration_s=1)))
    content = whole.read_bytes()
    # The comment of a WAV file stands at its end, those of the others at their beginning. Of an Opus file libsndfile
    # reads nothing without its last page.
    before = None if whole.suffix in (".wav", ".opus") or share < 0.5 else comment_in(whole)
    whole.write_bytes(content[: round(len(content) * share)])
    if before is None:
        with pytest.raises(InvalidInputError, match=whole.name):
            settings_in(comment_in(whole), str(whole))
    else:
        assert comment_in(whole) == before


def test_what_another_program_wrote_again_is_read(tmp_path: Path) -> None:
    told = said(Request(caption="x", duration_s=1))
    for version, size_bits, text in (
        (3, 8, b"\0eng\0" + told.encode()),
        (4, 7, b"\3eng\0" + told.encode()),
        (3, 8, b"\1eng\xff\xfe\0\0" + told.encode("utf-16")),
    ):
        sized = bytes(len(text) >> size_bits * power & ((1 << size_bits) - 1) for power in (3, 2, 1, 0))
        tag = b"ID3" + bytes([version, 0, 0]) + bytes(4) + b"COMM" + sized + bytes(2) + text
        path = written(tmp_path, "wav", "")
        plain = path.read_bytes()
        start = plain.index(b"id3 ")
        path.write_bytes(plain[:start] + b"id3 " + len(tag).to_bytes(4, "little") + tag)
        assert settings_in(comment_in(path), str(path)).model == "tiny"


@pytest.mark.parametrize("size", [2**63 + 5, 2**61, 2**40, 5])
def test_a_tag_whose_size_is_a_lie_is_not_read(size: int, tmp_path: Path) -> None:
    path = tmp_path / "song.caf"
    path.write_bytes(b"caff\0\1\0\0" + b"id3 " + size.to_bytes(8, "big") + bytes(50))
    with pytest.raises(InvalidInputError):
        comment_in(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path, tmp_path / "pipe.wav", tmp_path / "nothing.wav", Path("/dev/zero")):
        with pytest.raises(InvalidInputError):
            comment_in(path)


def test_a_song_that_was_made_without_its_plan_says_so() -> None:
    asked = Request(caption="x", think=True)
    found = settings_in(said(asked, planned=False, lm="0.6B"), "song.flac")
    assert not found.request.think
    assert found.knobs.lm is msgspec.UNSET


CLIP = Clip(audio=np.zeros((2, 96_000), dtype=np.float32))


@pytest.mark.parametrize(
    ("request_", "options", "words"),
    [
        pytest.param(Request(caption="x", task=Task.COVER, source_audio=CLIP), [], "--src-audio", id="its source"),
        pytest.param(Request(caption="x", duration_s=1), ["--src-audio", "a.wav"], "--task", id="a task"),
    ],
)
def test_what_a_file_cannot_give_is_asked_for(
    request_: Request, options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "flac", said(request_))
    assert console.run_click(cli, ["generate", "--like", str(path), *options]) == 2
    assert words in capsys.readouterr().err


def test_weights_of_a_folder_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "flac", said(Request(caption="x", duration_s=1), model=None))
    assert console.run_click(cli, ["generate", "--like", str(path)]) == 2
    assert "--model" in capsys.readouterr().err


def values_of(request: Request, *options: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """The request that the command makes of a song's file and these options."""
    asked: list[Request] = []
    monkeypatch.setattr("acestep.api.run_generate", lambda request, **_: asked.append(request) or {"songs": []})
    monkeypatch.setattr("acestep.cli.show.songs_text", lambda _: "")
    path = written(folder, "flac", said(request))
    assert console.run_click(cli, ["generate", "--like", str(path), *options]) == 0
    return asked[0]


def test_options_that_are_given_replace_what_belongs_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((48_000, 2)), 48_000)
    codes = Request(caption="x", task=Task.COVER, audio_codes=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), cover_strength=0.5)
    both = {"folder": tmp_path, "monkeypatch": monkeypatch}
    source = values_of(codes, "--src-audio", str(tmp_path / "a.wav"), "--duration", "-1", **both)
    assert source.source_audio is not None
    assert source.audio_codes == ()
    assert source.cover_strength == 0.5
    new = values_of(codes, "--task", "text2music", **both)
    assert (new.audio_codes, new.cover_strength, new.duration_s) == ((), 1.0, 2.0)
    followed = Request(caption="x", task=Task.COVER, source_audio=CLIP)
    assert values_of(followed, "--src-audio", str(tmp_path / "a.wav"), **both).duration_s == 1.0


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ([], ("slow rain", 70, 30)),
        (["--steps", "3"], ("slow rain", 70, 30)),
        (["--caption", "a jazz trio"], ("", 0, 0)),
        (["--lyrics", "la", "--bpm", "90"], ("", 90, 0)),
        (["--caption", "a jazz trio", "--planned-caption", "jazz"], ("jazz", 70, 30)),
    ],
)
def test_a_plan_is_used_again_only_for_the_words_it_was_made_for(
    options: list[str], plan: tuple[str, int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinking = Thinking(planned_caption="slow rain")
    song = Request(caption="rain", bpm=70, duration_s=30, think=True, thinking=thinking)
    again = values_of(song, *options, folder=tmp_path, monkeypatch=monkeypatch)
    assert (again.thinking.planned_caption, again.bpm, again.duration_s) == plan


@pytest.mark.parametrize("lyrics", ["@secret", "@@x", "la @ la"])
def test_words_of_a_stranger_name_no_file_here(lyrics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("hidden words")
    song = Request(caption="@secret", lyrics=lyrics, duration_s=1)
    again = values_of(song, folder=tmp_path, monkeypatch=monkeypatch)
    assert (again.caption, again.lyrics) == ("@secret", lyrics)
