"""Metadata are converted to the form used in training, or refused with their allowed values."""

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from acestep.checkpoints.tokenizer import encodable
from acestep.fields import BPMS, DURATIONS_S, KEYSCALES, LYRIC_LANGUAGES, TIMESIGNATURES, RequestField
from acestep.lm.metadata import NO_METADATA, Metadata, cot_yaml, wishes
from acestep.request import Request

metadata = st.builds(
    Metadata,
    bpm=st.sampled_from([0, *BPMS]),
    caption=st.text(),
    duration_s=st.sampled_from([0, *DURATIONS_S]),
    keyscale=st.sampled_from(["", *KEYSCALES]),
    language=st.sampled_from(["", *LYRIC_LANGUAGES]),
    timesignature=st.sampled_from(["", *TIMESIGNATURES]),
)


def test_there_are_as_many_values_as_in_training():
    assert (len(set(KEYSCALES)), len(set(LYRIC_LANGUAGES)), len(BPMS)) == (70, 51, 271)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Am", "A minor"),
        ("a minor", "A minor"),
        ("A", "A major"),
        ("C Major", "C major"),
        ("CM", "C major"),
        ("F#m", "F# minor"),
        ("bb", "Bb major"),
        ("B♭ min", "B♭ minor"),
        (" Eb maj ", "Eb major"),
        ("bm", "B minor"),
    ],
)
def test_keys_as_musicians_write_them_become_those_of_training(written, meant):
    assert Metadata(keyscale=written).keyscale == meant


@pytest.mark.parametrize(("written", "meant"), [("4/4", "4"), ("6/8", "6"), ("3", "3"), ("2/4", "2"), ("", "")])
def test_time_signatures_are_beats(written, meant):
    assert Metadata(timesignature=written).timesignature == meant


@pytest.mark.parametrize(("written", "meant"), [("pt-BR", "pt"), ("EN", "en"), ("zh_TW", "zh"), ("unknown", "unknown")])
def test_languages_are_codes(written, meant):
    assert Metadata(language=written).language == meant


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("bpm", 29, "30 to 300"),
        ("bpm", 301, "30 to 300"),
        ("bpm", -2, "30 to 300"),
        ("duration_s", 601, "1 to 600"),
        ("keyscale", "H minor", "A to G"),
        ("keyscale", "A dorian", "major or minor"),
        ("keyscale", "A minor\nbpm: 5", "major or minor"),
        ("timesignature", "5/4", "2, 3, 4, 6"),
        ("language", "english", "en es"),
        ("language", "-", "en es"),
        ("language", "</think>", "en es"),
    ],
)
def test_what_means_nothing_is_refused_with_what_would(field, value, names):
    with pytest.raises(ValueError, match=field) as caught:
        Metadata(**{field: value})
    assert names in str(caught.value)


@given(metadata)
def test_the_form_of_training_is_kept(given):
    again = Metadata(**{name: getattr(given, name) for name in given.__struct_fields__})
    assert again == given


def test_a_request_that_leaves_all_open_wishes_nothing():
    assert wishes(Request(caption="x", think=True)) == NO_METADATA
    assert not NO_METADATA.known
    assert cot_yaml(NO_METADATA) == ""


def test_a_requests_wishes_are_those_fields_but_not_its_caption():
    request = Request(
        caption="x", bpm=90, keyscale="Am", timesignature="3/4", language="fr", duration_s=30.7, think=True
    )
    known = wishes(request)
    assert known == Metadata(bpm=90, keyscale="A minor", timesignature="3", language="fr", duration_s=30)
    assert known.known == frozenset(RequestField) - {RequestField.CAPTION}


def test_the_thought_is_written_as_in_training():
    known = Metadata(
        bpm=120,
        caption="A calm piano piece with soft strings",
        duration_s=30,
        keyscale="F# minor",
        language="en",
        timesignature="4",
    )
    assert cot_yaml(known) == (
        "bpm: 120\ncaption: A calm piano piece with soft strings\nduration: 30\n"
        "keyscale: F# minor\nlanguage: en\ntimesignature: 4"
    )
    assert cot_yaml(Metadata(language="no", keyscale="A♭ major")) == "keyscale: A♭ major\nlanguage: 'no'"


@given(metadata)
def test_the_thought_is_yaml_of_the_known_fields(given):
    # PyYAML reads a NEL of its own writing back as the fold of a line.
    assume("\x85" not in given.caption)
    read = yaml.safe_load(cot_yaml(given)) or {}
    assert read.keys() == {str(field) for field in given.known}
    assert all(str(read[field]) == encodable(given.written(field)) for field in given.known)
    assert list(read) == sorted(read)
