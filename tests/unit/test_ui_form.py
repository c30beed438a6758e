"""What a browser sends: a request of exactly what was filled in, or a sentence; never anything else."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.clip import Clip
from acestep.errors import UsageError
from acestep.request import Request, Task
from acestep.thinking import Thinking
from acestep.ui.form import (
    AUDIO_FORMATS,
    INSTRUMENTAL,
    LONGEST_TEXT,
    PLAN_OF,
    Form,
    form_from,
    form_request,
    plan_values,
    request_to_plan,
    task_fields,
)
from acestep.ui.frame import file_of, problem_of
from acestep.ui.like import filled

CLIP = Clip(audio=np.zeros((2, 480_000), dtype=np.float32))

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from([*Task, *AUDIO_FORMATS, "NaN", "../../etc/passwd"]),
)


def a_clip(path: str) -> Clip:
    return CLIP


@given(values=st.dictionaries(st.sampled_from(Form.__struct_fields__), anything, max_size=6))
def test_any_form_is_a_request_or_a_sentence(values: dict[str, Any]) -> None:
    with suppress(UsageError):
        assert isinstance(form_request(form_from(values), a_clip), Request)


def test_an_untouched_form_is_a_request_for_one_new_song() -> None:
    made = form_request(form_from(dict.fromkeys(Form.__struct_fields__)), a_clip)
    assert (made.task, made.batch, made.duration_s, made.steps) == (Task.TEXT2MUSIC, 1, 60.0, 0)


def test_a_time_signature_may_be_a_number() -> None:
    assert {form_request(form_from({"timesignature": n}), a_clip).timesignature for n in (4, 4.0, "4", "4/4")} == {"4"}


def test_every_field_reaches_the_request() -> None:
    form = form_from(
        {
            "caption": "drums",
            "lyrics": "la",
            "language": "de",
            "bpm": 90.0,
            "keyscale": "A minor",
            "timesignature": "3",
            "think": True,
            "batch": 2.0,
            "duration": 30,
            "seed": 7,
            "random_seed": False,
            "steps": 4,
            "guidance": 5,
            "shift": 2,
            "reference_audio": "some.wav",
        }
    )
    assert form_request(form, a_clip) == Request(
        caption="drums",
        lyrics="la",
        language="de",
        bpm=90,
        keyscale="A minor",
        timesignature="3",
        think=True,
        batch=2,
        duration_s=30.0,
        seed=7,
        steps=4,
        guidance_scale=5.0,
        shift=2.0,
        reference_audio=CLIP,
    )


def test_a_plan_is_followed_as_it_stands_on_the_form_and_is_the_song_s_own_again() -> None:
    asked = {"caption": "a gate", "lyrics": "la", "bpm": 70, "seed": 5, "random_seed": False}
    planned = Request(caption="a gate of iron", bpm=91, keyscale="A minor", language="de", duration_s=30)
    values = asked | plan_values(planned)
    made = form_request(form_from(values), a_clip)
    assert made == Request(
        caption="a gate",
        lyrics="la",
        **{name: getattr(planned, name) for name in ("bpm", "keyscale", "timesignature", "language", "duration_s")},
        seed=5,
        think=True,
        thinking=Thinking(planned_caption="a gate of iron"),
    )
    filled_in = filled(msgspec.structs.asdict(made)).values
    assert {name: filled_in[name] for name in PLAN_OF} == {name: values[name] for name in PLAN_OF}
    assert form_request(form_from(filled_in), a_clip) == made
    # Without thinking there is no plan, and another plan begins from what was asked for.
    assert form_request(form_from(values | {"think": False}), a_clip).bpm == 70
    again = request_to_plan(form_from(values | {"random_seed": True}), a_clip)
    assert (again.bpm, again.thinking.planned_caption, again.think) == (70, "", True)
    assert again.thinking.seed != request_to_plan(form_from(asked), a_clip).thinking.seed


@pytest.mark.parametrize("task", list(Task))
def test_every_task_gets_the_fields_that_it_reads_and_no_others(task: Task) -> None:
    source = "" if task is Task.TEXT2MUSIC else "a.wav"
    wish = {"task": task.value, "source_audio": source, "repaint_start": 1, "repaint_end": 2, "cover_strength": 0.5}
    wish |= {"repaint_strength": 0.2, "cover_noise": 0.1}
    made = form_request(form_from({**wish, "track": "vocals", "tracks": "bass, drums"}), a_clip)
    assert made.task is task
    assert (made.source_audio is CLIP) == (task is not Task.TEXT2MUSIC)
    assert (made.repaint_end_s == 2) == ("repaint_end" in task_fields(task))
    assert (made.cover_strength == 0.5) == (made.cover_noise == 0.1) == (task is Task.COVER)
    assert (made.repaint_strength == 0.2) == ("repaint_end" in task_fields(task))
    assert (made.track == "vocals") == ("track" in task_fields(task))
    assert made.tracks == (("bass", "drums") if task is Task.COMPLETE else ())


def test_a_song_without_words_is_told_so_in_the_words_of_training() -> None:
    assert form_request(form_from({"lyrics": "la", "instrumental": True}), a_clip).lyrics == INSTRUMENTAL


def test_songs_without_a_seed_differ_and_a_seed_stays() -> None:
    seeds = {form_request(form_from({"seed": 5, "random_seed": True}), a_clip).seed for _ in range(4)}
    assert len(seeds) > 1
    seeds = {form_request(form_from({"seed": -1, "random_seed": False}), a_clip).seed for _ in range(4)}
    assert len(seeds) > 1
    assert form_request(form_from({"seed": 5, "random_seed": False}), a_clip).seed == 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"duration": math.nan}, "duration"),
        ({"duration": 10**400}, "duration"),
        ({"batch": 0}, "batch"),
        ({"batch": 1e300}, "batch"),
        ({"batch": 2.5}, "batch"),
        ({"caption": 3}, "caption"),
        ({"caption": "x" * (LONGEST_TEXT + 1)}, "caption"),
        ({"seed": -2, "random_seed": False}, "seed"),
        ({"duration": -2}, "duration"),
        ({"source_audio": "a.wav"}, "choose a task"),
        ({"task": "whistle"}, "task"),
        ({"task": "cover"}, "source_audio"),
        ({"audio_format": "ogg"}, "audio_format"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        form_request(form_from(values), a_clip)


def test_only_files_in_the_folder_of_uploads_are_taken(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "uploads", tmp_path / "secret.wav"
    folder.mkdir()
    elsewhere.write_bytes(b"x")
    song = folder / "song.wav"
    song.write_bytes(b"x")
    link = folder / "link.wav"
    link.symlink_to(elsewhere)
    file = file_of({"path": str(song), "orig_name": "../x", "url": "http://elsewhere"})
    assert file == {"path": str(song), "meta": {"_type": "gradio.FileData"}}
    assert problem_of([None, file, "text", 3], [True, True, False, False], folder) is None
    hostile = (
        {"path": str(elsewhere)},
        {"path": str(link)},
        {"path": str(folder / ".." / "secret.wav")},
        {"path": str(folder)},
        {"path": str(folder / "missing.wav")},
        {"path": "http://127.0.0.1:9/song.wav"},
        {"path": "a\0b"},
        {"path": "x" * 10_000},
        {"path": 3},
        {"url": "http://127.0.0.1:9/song.wav"},
        {},
        str(song),
        [file],
        7,
    )
    for value in hostile:
        assert problem_of(["text", value], [False, True], folder) == 1, value


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=4
    )
)
def test_what_is_no_file_is_a_plain_value(value: Any) -> None:
    folder = Path("/nowhere")
    assert problem_of([value], [False], folder) == (0 if isinstance(value, list) else None)
    assert problem_of([{"path": json.dumps(value)}], [False], folder) == 0
