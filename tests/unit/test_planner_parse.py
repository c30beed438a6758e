"""What was written is read back, and what was not is an error that shows it."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import AceStepError
from acestep.fields import BPMS, DURATIONS_S, KEYSCALES, LYRIC_LANGUAGES, TIMESIGNATURES
from acestep.lm import parse
from acestep.lm.metadata import Metadata, cot_yaml
from acestep.lm.vocabulary import code_name
from tests.planner_tokenizers import HOSTILE, byte_tokenizer

CODE = code_name(1)

captions = st.text(st.characters(codec="utf-8")).map(lambda text: " ".join(text.split()))
metadata = st.builds(
    Metadata,
    bpm=st.sampled_from([0, *BPMS]),
    caption=captions,
    duration_s=st.sampled_from(DURATIONS_S),
    keyscale=st.sampled_from(["", *KEYSCALES]),
    language=st.sampled_from(["", *LYRIC_LANGUAGES]),
    timesignature=st.sampled_from(["", *TIMESIGNATURES]),
)


def read(text: str) -> parse.Writing:
    """What is read of tokens whose marks are those that `text` names, and whose other tokens are plain."""
    tokenizer = byte_tokenizer()
    ids = {name: token for token, name in tokenizer.vocabulary.marks.items()} | {CODE: tokenizer.vocabulary.id(1)}
    pieces = re.split("(" + "|".join(map(re.escape, ids)) + ")", text)
    tokens = [token for piece in pieces for token in ([ids[piece]] if piece in ids else tokenizer.plain(piece))]
    return parse.read_tokens(tokens, tokenizer)


@given(metadata)
def test_the_thought_of_training_is_read_back(known):
    writing = parse.read_tokens(thinking(cot_yaml(known)), byte_tokenizer())
    assert writing.metadata == known
    assert writing.lyrics == "la la"


def thinking(thought: str) -> list[int]:
    tokenizer = byte_tokenizer()
    vocabulary = tokenizer.vocabulary
    follows = tokenizer.plain("\n\n# Lyric\nla la\n")
    return [
        vocabulary.think,
        *tokenizer.plain(f"\n{thought}\n"),
        vocabulary.thought,
        *follows,
        vocabulary.eos,
    ]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_marks_that_are_only_spelled_out_end_nothing(hostile):
    tokenizer = byte_tokenizer()
    vocabulary = tokenizer.vocabulary
    lyrics = tokenizer.plain(f"la {hostile} la")
    tokens = [vocabulary.think, *tokenizer.plain("\nbpm: 90\n"), vocabulary.thought, *lyrics, vocabulary.eos]
    writing = parse.read_tokens(tokens, tokenizer)
    assert writing.metadata == Metadata(bpm=90)
    assert writing.lyrics == tokenizer.text(lyrics)


@pytest.mark.parametrize(
    ("text", "lyrics"),
    [
        ("# Lyric\n[Verse]\nla", "[Verse]\nla"),
        ("\n\n# Lyrics\nla\n", "la"),
        ("# Languages\nen\n\n# Lyric\nla", "la"),
        ("# lyric\n", ""),
        ("", ""),
        ("\nla\n# Lyric\nla", "la\n# Lyric\nla"),
    ],
)
def test_lyrics_come_without_their_heading(text, lyrics):
    assert read(f"<think>\nbpm: 90\n</think>{text}<|im_end|>").lyrics == lyrics


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("bpm: 90\ncaption: a\n  b\n\n  c\nduration: 20", Metadata(bpm=90, caption="a b c", duration_s=20)),
        ("caption: 'it''s: mine'", Metadata(caption="it's: mine")),
        ('caption: "Sun" and "moon"', Metadata(caption='"Sun" and "moon"')),
        ("caption: ''", Metadata(caption="''")),
        ("language: 'no'", Metadata(language="no")),
        ("BPM: 90\ngenres: pop\n  rock\nkeyscale: N/A", Metadata(bpm=90)),
        ("caption: N/A", Metadata(caption="N/A")),
        ("bpm: 80\nbpm: 90", Metadata(bpm=90)),
    ],
)
def test_the_thinking_is_read_line_by_line(thought, expected):
    for text in (f"<think>\n{thought}\n</think>", f"<think>\n{thought}\n<|im_end|>", f"{thought}\n{CODE}"):
        assert read(text).metadata == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no fields here",
        "<think>\n</think>",
        "bpm: 999",
        "bpm: fast",
        "keyscale: H",
        "genres: pop",
        "bpm:",
        "bpm: N/A",
    ],
)
def test_a_text_without_metadata_is_an_error_that_shows_it(text):
    with pytest.raises(parse.ParseError) as caught:
        _ = read(text).metadata
    assert caught.value.text == text
    assert isinstance(caught.value, AceStepError)


def test_lyrics_of_a_thinking_that_never_ended_are_an_error():
    with pytest.raises(parse.ParseError, match="no end"):
        _ = read("<think>\nbpm: 90\n").lyrics


def test_a_long_text_is_kept_whole_and_shown_in_short():
    with pytest.raises(parse.ParseError) as caught:
        parse.codes_in_tokens(byte_tokenizer().plain("x" * 100_000), byte_tokenizer())
    assert len(caught.value.text) == 100_000
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("wrong", ["nothing", "size", "illegal", "text", "mark"])
def test_anything_else_among_the_codes_is_an_error(wrong):
    tokenizer = byte_tokenizer()
    vocabulary = tokenizer.vocabulary
    tokens = {
        "nothing": [vocabulary.eos],
        "size": [vocabulary.id(1), vocabulary.size],
        "illegal": [vocabulary.id(1), vocabulary.codes.stop],
        "text": [vocabulary.id(1), 65],
        "mark": [vocabulary.think, vocabulary.id(1)],
    }[wrong]
    with pytest.raises(parse.ParseError):
        parse.codes_in_tokens(tokens, tokenizer)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_read_or_refused(text):
    for wrapped in (text, f"<think>{text}</think>{text}", f"<think>\ncaption: {text}"):
        writing = read(wrapped)
        for part in ("metadata", "lyrics"):
            with contextlib.suppress(parse.ParseError):
                getattr(writing, part)
