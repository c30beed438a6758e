"""The byte-level tokenizer takes any text there is and never more tokens than asked."""

from hypothesis import given
from hypothesis import strategies as st

from acestep.checkpoints.build import TINY_QWEN
from acestep.checkpoints.tokenizer import SPECIAL_TOKENS, ByteTokenizer

TOKENIZER = ByteTokenizer()
any_text = st.text(st.characters(exclude_categories=()))  # surrogates too, as a terminal can hand them over


@given(any_text)
def test_any_text_becomes_ids_that_the_tiny_text_encoder_has(text):
    assert all(0 <= i < TINY_QWEN.vocab_size for i in TOKENIZER.encode(text))


@given(st.text())
def test_plain_text_is_its_utf8_bytes(text):
    ids = TOKENIZER.encode(text)
    assert b"".join(bytes([i]) if i < 256 else b"" for i in ids).decode() == _without_specials(text)


def _without_specials(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    return text


@given(any_text, st.integers(0, 50))
def test_a_limit_keeps_the_beginning(text, limit):
    assert TOKENIZER.encode(text, limit) == TOKENIZER.encode(text)[:limit]


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "la", " ", "피아노"]), max_size=8))
def test_a_special_token_is_one_token_wherever_it_stands(pieces):
    expected = [i for piece in pieces for i in ([SPECIAL_TOKENS[piece]] if piece in SPECIAL_TOKENS else piece.encode())]
    assert TOKENIZER.encode("".join(pieces)) == expected
