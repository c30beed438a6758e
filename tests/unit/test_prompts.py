"""What does not fit into the prompt is left out with a sentence, and nothing else is said."""

import pytest

from acestep.checkpoints.tokenizer import ByteTokenizer
from acestep.dit.prompts import cut_warnings
from acestep.request import MAX_LYRIC_TOKENS, Request


@pytest.mark.parametrize(
    ("caption", "lyrics", "words"),
    [
        ("slow piano", "la la la", []),
        ("x" * 300, "", ["caption"]),
        ("", "y" * (MAX_LYRIC_TOKENS + 1), ["lyrics"]),
        ("x" * 5_000, "y" * 1_000_000, ["caption", "lyrics"]),
    ],
)
def test_a_cut_prompt_is_said(caption: str, lyrics: str, words: list[str]) -> None:
    warnings = cut_warnings(Request(caption=caption, lyrics=lyrics), ByteTokenizer())
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_the_longest_prompt_that_fits_is_not_cut() -> None:
    room = MAX_LYRIC_TOKENS - len(ByteTokenizer().encode("# Languages\nunknown\n\n# Lyric\n<|endoftext|>"))
    assert not cut_warnings(Request(caption="x", lyrics="y" * room), ByteTokenizer())
    assert cut_warnings(Request(caption="x", lyrics="y" * (room + 1)), ByteTokenizer())
