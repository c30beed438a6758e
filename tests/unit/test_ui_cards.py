"""Songs on the page: their cards and places in the queue, the form filled like a song, the visitor's language."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.audio.outline import BARS, outline
from acestep.audio.write import FILE_FORMATS, write_song
from acestep.errors import UsageError
from acestep.fields import LYRIC_LANGUAGES, UNKNOWN_LANGUAGE
from acestep.knobs import Knobs
from acestep.language_names import OWN_NAMES
from acestep.locale_text import LANGUAGES
from acestep.request import Request, Task
from acestep.result import Result
from acestep.serving.time_left import TimeLeft
from acestep.serving.visits import Visit, VisitSong
from acestep.song import DecodePath
from acestep.song_settings import SongSettings, settings_in, settings_text
from acestep.ui.cards import songs_html
from acestep.ui.examples import example, example_names
from acestep.ui.form import Form, form_from, form_request
from acestep.ui.gallery import MOST_LISTED, Gallery
from acestep.ui.like import filled, filled_like
from acestep.ui.places import Places
from acestep.ui.visitor_language import wanted_language
from acestep.ui.words import PageText

VISITOR = "0123456789abcdef" * 2


def tags(request: Request, seed: int = 7) -> str:
    """The comment that a song of a request carries."""
    result = Result(request=request, songs=(), stages=(), songs_per_pass=1, decode_path=DecodePath.CPU, warnings=())
    return settings_text(request, result, seed, "tiny", Knobs())


def settings(request: Request, seed: int = 7) -> SongSettings:
    return settings_in(tags(request, seed), "song.flac")


def a_song(folder: Path, seed: int, audio_format: str = "wav", caption: str = "drums") -> Path:
    sound = np.sin(np.linspace(0, 4_000, 48_000, dtype=np.float32)) * np.linspace(0, 0.5, 48_000, dtype=np.float32)
    folder.mkdir(exist_ok=True, parents=True)
    comment = tags(Request(caption=caption, duration_s=1), seed)
    return write_song(
        folder, f"{caption}-{seed}", audio_format, np.stack([sound, sound]), 48_000, title=caption, comment=comment
    )


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    return Gallery()


@pytest.mark.parametrize("audio_format", FILE_FORMATS)
def test_a_song_s_outline_follows_its_loudness(audio_format: str, tmp_path: Path) -> None:
    levels = outline(a_song(tmp_path, 1, audio_format))
    assert len(levels) == BARS
    assert max(levels) == 100
    assert levels[0] < levels[BARS // 2] < levels[-2]
    broken = tmp_path / "x.wav"
    broken.write_bytes(b"RIFF")
    assert outline(broken) == ()


def test_a_visitor_who_comes_back_finds_the_songs_of_the_folder_and_no_others(tmp_path: Path, gallery: Gallery) -> None:
    out = tmp_path / "out"
    for moment, seed in enumerate((3, 4, 5, 1)):
        os.utime(a_song(out / VISITOR, seed), (moment, moment))
    a_song(out / ("f" * 32), 9)
    (out / VISITOR / "notes.txt").write_text("x")
    visit = Visit(out)
    gallery.come_back(visit, VISITOR)
    # The newest run first, and each batch in the order of its seeds.
    assert [song.seed for song in visit.made] == [1, 3, 4, 5]
    assert {song.caption for song in visit.made} == {"drums"}
    assert all(song.served.read_bytes() == song.path.read_bytes() for song in visit.made)
    assert all(song.served.is_relative_to(tmp_path / "served") for song in visit.made)
    assert {song.duration_s for song in visit.made} == {1.0}


@pytest.mark.parametrize("name", ["", "..", f"../{VISITOR}", VISITOR.upper(), VISITOR + "0", "/etc", "\0" * 32])
def test_a_name_that_is_no_visitor_s_leads_nowhere(name: str, tmp_path: Path, gallery: Gallery) -> None:
    visit = Visit(tmp_path / "out")
    folder = visit.folder
    gallery.come_back(visit, name)
    assert (visit.folder, visit.made) == (folder, [])


def test_only_the_newest_songs_are_listed(tmp_path: Path, gallery: Gallery) -> None:
    first = a_song(tmp_path / VISITOR, 0)
    for number in range(1, MOST_LISTED + 3):
        os.link(first, first.with_name(f"copy-{number}.wav"))
    visit = Visit(tmp_path)
    gallery.come_back(visit, VISITOR)
    assert len(visit.made) == MOST_LISTED


def test_a_song_is_deleted_only_by_its_own_visitor(tmp_path: Path, gallery: Gallery) -> None:
    path = a_song(tmp_path / VISITOR, 1)
    ann, bob = Visit(tmp_path), Visit(tmp_path)
    gallery.come_back(ann, VISITOR)
    gallery.delete(bob, path.name)
    gallery.delete(ann, f"../{VISITOR}/{path.name}")
    assert path.exists()
    served = ann.made[0].served
    gallery.delete(ann, path.name)
    assert (path.exists(), served.exists(), ann.made) == (False, False, [])


def test_equal_songs_of_two_visitors_are_served_and_deleted_apart(tmp_path: Path, gallery: Gallery) -> None:
    names = (VISITOR, "f" * 32)
    first = a_song(tmp_path / VISITOR, 1)
    (tmp_path / names[1]).mkdir()
    os.link(first, tmp_path / names[1] / first.name)
    ann, bob = (Visit(tmp_path) for _ in names)
    for visit, name in zip((ann, bob), names, strict=True):
        gallery.come_back(visit, name)
        # The address of a song may be passed on, and the folder's name opens all of them.
        assert name not in str(visit.made[0].served)
    gallery.delete(ann, first.name)
    assert bob.made[0].served.read_bytes() == bob.made[0].path.read_bytes()


def test_what_a_run_took_is_known_as_long_as_the_program_runs(tmp_path: Path, gallery: Gallery) -> None:
    path = a_song(tmp_path / VISITOR, 1)
    bare = VisitSong(path=path, served=gallery.keep(path), caption="drums", seed=1, duration_s=1.0)
    (described,) = gallery.describe([bare], seconds=12.0)
    assert described.settings == settings(Request(caption="drums", duration_s=1), seed=1)
    visit = Visit(tmp_path)
    gallery.come_back(visit, VISITOR)
    assert visit.made == [described]
    assert "made in 12 s" in songs_html(visit.made, PageText("en"))


requests = st.builds(
    Request,
    caption=st.sampled_from(("drums", "빗소리", "a, b")),
    lyrics=st.sampled_from(("", "[verse]\nla")),
    duration_s=st.sampled_from((0.0, 1.0, 30.5)),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    steps=st.sampled_from((0, 8)),
    guidance_scale=st.sampled_from((0.0, 7.0)),
    shift=st.sampled_from((1.0, 3.0)),
    bpm=st.sampled_from((0, 90)),
    keyscale=st.sampled_from(("", "A minor")),
    timesignature=st.sampled_from(("", "3")),
    language=st.sampled_from(("unknown", "de")),
)


@given(request=requests)
def test_a_form_filled_like_a_song_asks_for_that_song(request: Request) -> None:
    form = filled_like(settings(request, seed=request.seed))
    assert form.left_out == ()
    asked = form_request(form_from(form.values), lambda _: pytest.fail("no file"))
    assert asked == msgspec.structs.replace(request, batch=1)
    another = form_from(filled_like(settings(request), new_seed=True).values)
    assert another.random_seed
    assert msgspec.structs.replace(another, random_seed=False, seed=request.seed) == form_from(form.values)


def test_what_no_form_has_is_named_and_left_out() -> None:
    form = filled_like(settings(Request(caption="x", dcw=False, guidance_interval=(0.2, 0.8))))
    assert set(form.left_out) == {"dcw", "guidance_interval"}


def test_a_song_never_sets_what_belongs_to_the_machine() -> None:
    form = filled_like(settings(Request(caption="x")))
    assert not {"reference_audio", "audio_format", "adapter"} & set(form.values)
    assert set(form.values) <= set(Form.__struct_fields__)
    assert form.values["source_audio"] is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_examples_are_songs_with_titles_and_those_of_the_language_come_first(language: str) -> None:
    names, words = example_names(language), PageText(language)
    assert len(names) == len({words(f"example_{name}") for name in names}) == 8
    assert example(names[0])["language"] == language
    for name in names:
        form = form_from(filled(example(name)).values)
        assert form.random_seed
        assert isinstance(form_request(form, lambda _: pytest.fail("no file")), Request)
    with pytest.raises(UsageError):
        example("../../pyproject")


def test_every_language_of_lyrics_has_a_name_of_its_own() -> None:
    assert set(OWN_NAMES) == set(LYRIC_LANGUAGES) - {UNKNOWN_LANGUAGE}
    assert len(set(OWN_NAMES.values())) == len(OWN_NAMES)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
        ("de-DE,de;q=0.9,ja;q=0.5,en;q=0.3", "ja"),
        ("zh-TW", "zh"),
        ("en;q=0.1, KO;q=0.7", "ko"),
        ("ko; q=0.9, en;q=0.5", "ko"),
        ("en ;Q=0.5 , ja\t; q=0.6", "ja"),
        ("ko;q=0", "en"),
        ("ko;q=often, ja", "ja"),
        ("*", "en"),
        ("ko;q=nan", "en"),
    ],
)
def test_the_page_speaks_the_most_wanted_language_that_it_has(accepted: str, language: str) -> None:
    assert wanted_language(accepted) == language


@given(st.text(max_size=40))
def test_any_header_has_a_language(accepted: str) -> None:
    assert wanted_language(accepted) in LANGUAGES


def test_places_follow_the_order_in_which_runs_were_asked_for(tmp_path: Path) -> None:
    places = Places()
    ann, bob, eve = (Visit(tmp_path) for _ in range(3))
    for visit in (ann, bob, ann, eve):
        places.join(visit)
    assert [places.of(visit) for visit in (ann, bob, eve)] == [1, 2, 4]
    places.leave(ann)
    assert [places.of(visit) for visit in (ann, bob, eve)] == [2, 1, 3]
    places.leave(ann, with_all=True)
    assert [places.of(visit) for visit in (ann, bob, eve)] == [0, 1, 2]
    places.leave(ann)


@pytest.fixture
def moments() -> Iterator[float]:
    return iter(range(0, 1000, 2))  # type: ignore[return-value]


def test_the_time_left_follows_the_pace_of_the_stage(moments: Iterator[float]) -> None:
    left = TimeLeft(clock=lambda: next(moments))
    told = [left.after("denoise", done, 4) for done in (0, 1, 2, 4)]
    assert told == [None, 6, 4, 0]
    assert left.after("denoise", 0, 4) is None
    assert left.after("decode", 1, 3) is None
    assert left.after("decode", 2, 3) == 2


def test_a_card_says_what_tells_its_song_from_the_others() -> None:
    made: list[Any] = [
        VisitSong(
            path=Path(f"{seed}.flac"),
            served=Path(f"/cache/{seed}.flac"),
            caption="drums",
            seed=seed,
            duration_s=90.0,
            settings=settings(Request(caption="drums")),
        )
        for seed in (7, 8)
    ]
    page = songs_html(made, PageText("en"))
    assert page.count('class="song"') == 2
    assert page.count('data-act="zip"') == 1
    for text in ("seed 7", "seed 8", "1 min 30 s", "tiny", "1:30"):
        assert text in page
    assert 'data-act="zip"' not in songs_html(made[:1], PageText("en"))
    assert 'data-act="use"' not in songs_html([msgspec.structs.replace(made[0], settings=None)], PageText("en"))


def test_a_cover_is_filled_in_without_its_source() -> None:
    song = msgspec.structs.replace(
        settings(Request(caption="x")).request, task=Task.COVER, cover_strength=0.5, repaint_strength=0.5
    )
    form = filled_like(msgspec.structs.replace(settings(Request(caption="x")), request=song))
    assert (form.values["task"], form.values["cover_strength"]) == (Task.COVER, 0.5)
    assert form.values["repaint_strength"] == Form().repaint_strength
    assert "source_audio" not in {name for name, value in form.values.items() if value is not None}
