"""Names of keys, languages and tracks mean the same in every entry point, with thinking and without."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.automatic import AUTOMATIC
from acestep.clip import SAMPLE_RATE, Clip
from acestep.fields import (
    KEYSCALES,
    LYRIC_LANGUAGES,
    TIMESIGNATURES,
    TRACKS,
    keyscale_of,
    language_of,
    timesignature_of,
    track_of,
)
from acestep.language_names import ISO_CODES, USUAL_NAMES
from acestep.lm.metadata import Metadata
from acestep.request import Request, Task
from acestep.thinking import Sampling, Thinking

SOURCE = Clip(audio=np.zeros((2, SAMPLE_RATE), dtype=np.float32))
RULES = (
    (keyscale_of, KEYSCALES),
    (language_of, LYRIC_LANGUAGES),
    (timesignature_of, TIMESIGNATURES),
    (track_of, TRACKS),
)


@pytest.mark.parametrize(("rule", "names"), RULES)
def test_a_name_of_training_stays_and_a_blank_text_is_none(rule, names) -> None:
    assert [rule(name) for name in names] == list(names)
    assert rule(" \t") == ""


@pytest.mark.parametrize(("rule", "names"), RULES)
@given(text=st.text(max_size=12))
def test_any_text_is_a_name_of_training_or_refused(rule, names, text: str) -> None:
    try:
        found = rule(text)
    except ValueError:
        return
    assert found in ("", *names)
    assert rule(found) == found


@pytest.mark.parametrize(
    ("rule", "written", "meant"),
    [
        (track_of, "Backing Vocals", "backing_vocals"),
        (track_of, "backing-vocals", "backing_vocals"),
        (track_of, " DRUMS ", "drums"),
        (language_of, "zh-CN", "zh"),
        (language_of, "zh_Hant_TW", "zh"),
        (language_of, "EN", "en"),
        *((language_of, code, "zh") for code in ("zho", "chi", "CMN", "zh-cmn-Hans")),
        *((language_of, code, "yue") for code in ("zh-yue", "zh-yue-HK", "yue-Hant-HK")),
        *((language_of, code, "no") for code in ("nb", "nn-NO", "nor")),
        *((language_of, code, "unknown") for code in ("und", "mul")),
        (language_of, "spa", "es"),
        (language_of, "iw", "he"),
        (language_of, "\N{FULLWIDTH LATIN SMALL LETTER E}\N{FULLWIDTH LATIN SMALL LETTER N}", "en"),
        (timesignature_of, "\N{FULLWIDTH DIGIT SIX}\N{FULLWIDTH SOLIDUS}8", "6"),
        (timesignature_of, "3\N{FRACTION SLASH}4", "3"),
        (keyscale_of, "\N{FULLWIDTH LATIN CAPITAL LETTER C} major", "C major"),
        (timesignature_of, "4 / 4", "4"),
        (keyscale_of, "c MAJOR", "C major"),
        (keyscale_of, "F♯ minor", "F♯ minor"),
        (keyscale_of, "bbm", "Bb minor"),
        (keyscale_of, "F sharp minor", "F# minor"),
        (keyscale_of, "B flat", "Bb major"),
        (keyscale_of, "c_minor", "C minor"),
        (keyscale_of, "N/A", ""),
        (timesignature_of, "unknown", ""),
        (keyscale_of, "C:min", "C minor"),
        (language_of, "auto", "unknown"),
        *((language_of, word, "unknown") for word in ("None", "n/a", "-1", "automatic")),
        *((rule, word, "") for rule in (keyscale_of, timesignature_of) for word in ("-1", "AUTO", "automatic")),
    ],
)
def test_what_people_write_becomes_the_name_of_training(rule, written: str, meant: str) -> None:
    assert rule(written) == meant


@pytest.mark.parametrize(
    ("rule", "written", "close"),
    [
        (track_of, "drum", "drums"),
        (track_of, "vocal", "vocals"),
        (language_of, "english", "en"),
        (language_of, "jp", "ja"),
        (language_of, "Français", "fr"),
        (language_of, "日本語", "ja"),
        (language_of, "Chinese (Simplified)", "zh"),
        (language_of, "en US", "en"),
        (track_of, "electric guitar", "guitar"),
        (track_of, "backup vocals", "backing_vocals"),
        (track_of, "Piano", "keyboard"),
        (track_of, "bass guitar", "bass"),
    ],
)
def test_a_name_that_is_nearly_right_comes_with_a_suggestion(rule, written: str, close: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{close}'"):
        rule(written)


@pytest.mark.parametrize("written", ["tlh", "e", "C", "xx", "klingon", "i-klingon", "br"])
def test_no_language_is_suggested_that_only_looks_alike(written: str) -> None:
    with pytest.raises(ValueError, match=f"got {written!r}$"):
        language_of(written)


def test_every_name_of_a_language_leads_to_one_that_was_trained() -> None:
    assert {*ISO_CODES.values(), *USUAL_NAMES.values()} <= {*LYRIC_LANGUAGES}
    assert not {*ISO_CODES} & {*LYRIC_LANGUAGES}


@pytest.mark.parametrize("think", [False, True])
def test_a_request_has_the_names_of_training_whether_it_thinks_or_not(think: bool) -> None:
    request = Request(caption="x", keyscale="am", timesignature="6/8", language="zh-CN", think=think)
    assert (request.keyscale, request.timesignature, request.language) == ("A minor", "6", "zh")
    assert Request(caption="x", language="", think=think).language == "unknown"
    for field, value in (("keyscale", "H"), ("timesignature", "5/4"), ("language", "klingon")):
        with pytest.raises(ValueError, match=field):
            Request(caption="x", think=think, **{field: value})


@pytest.mark.parametrize("kind", [Request, Metadata])
@pytest.mark.parametrize("written", [4, "4", "4/4"])
def test_a_time_signature_may_be_a_number_in_python_and_in_json(kind, written: int | str) -> None:
    values = {"caption": "x", "timesignature": written}
    assert kind(**values).timesignature == "4"
    assert msgspec.json.decode(msgspec.json.encode(values), type=kind).timesignature == "4"


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in (Request, Metadata, Thinking, Sampling) for field in kind.__struct_fields__],
)
def test_a_value_of_another_type_is_refused_by_its_name(kind, field: str) -> None:
    needed = {"caption": "x"} if kind is Request else {}
    with pytest.raises(ValueError, match=field):
        kind(**needed | {field: object()})


def test_a_track_that_is_named_twice_counts_once() -> None:
    song = {"caption": "x", "task": Task.COMPLETE, "source_audio": SOURCE}
    assert Request(**song, tracks=("Drums", "bass", "drums")).tracks == ("drums", "bass")


@pytest.mark.parametrize("task", [Task.EXTRACT, Task.LEGO])
def test_a_task_for_one_track_asks_for_it(task: Task) -> None:
    assert Request(caption="x", task=task, source_audio=SOURCE, track="Drums").track == "drums"
    with pytest.raises(ValueError, match="needs a track: one of woodwinds"):
        Request(caption="x", task=task, source_audio=SOURCE)


@pytest.mark.parametrize("field", ["duration_s", "bpm"])
def test_minus_one_is_automatic_and_other_negative_numbers_are_not(field: str) -> None:
    assert Request(caption="x", **{field: AUTOMATIC}) == Request(caption="x")
    with pytest.raises(ValueError, match=field):
        Request(caption="x", **{field: -2})


def test_a_seed_of_minus_one_is_drawn() -> None:
    assert len({Request(caption="x", seed=AUTOMATIC).seed for _ in range(4)}) > 1
    assert len({Thinking(seed=AUTOMATIC).seed for _ in range(4)}) > 1
    assert all(Request(caption="x", seed=AUTOMATIC).seed >= 0 for _ in range(4))


def test_minus_one_is_automatic_in_known_metadata_too() -> None:
    assert Metadata(bpm=AUTOMATIC, duration_s=AUTOMATIC) == Metadata()


def test_minus_one_ends_a_repainted_window_at_the_end() -> None:
    wish = {"caption": "x", "task": Task.REPAINT, "source_audio": SOURCE, "repaint_start_s": 0.2}
    assert Request(**wish, repaint_end_s=AUTOMATIC).window == Request(**wish).window
    with pytest.raises(ValueError, match="repaint"):
        Request(**wish, repaint_end_s=-2)
