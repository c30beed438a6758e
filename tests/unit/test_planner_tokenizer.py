"""Nothing a person writes becomes a special token, and no token is misread."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from acestep.checkpoints.tokenizer import encodable
from acestep.errors import InvalidInputError
from acestep.lm.tokenizer import COMPACT, FULL_SIZE, BytePlannerTokenizer, HubPlannerTokenizer, PlannerTokenizer
from acestep.lm.vocabulary import CODES, Vocabulary, code_name, read_vocabulary
from acestep.request import MAX_AUDIO_CODE
from tests.planner_tokenizers import (
    CHECKPOINT,
    HOSTILE,
    MARKS,
    TOKENIZERS,
    checkpoint_tokenizer,
    trained_backend,
    with_marks,
)

any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
hostile = st.lists(st.one_of(st.sampled_from(HOSTILE), any_text), max_size=6).map("".join)


@pytest.fixture(scope="module", params=[*TOKENIZERS, "full size"])
def tokenizer(request: pytest.FixtureRequest) -> PlannerTokenizer:
    return BytePlannerTokenizer(FULL_SIZE) if request.param == "full size" else TOKENIZERS[request.param]()


@given(text=hostile)
def test_any_text_stays_plain_and_comes_back(tokenizer, text):
    tokens = tokenizer.plain(text)
    assert all(0 <= token < tokenizer.vocabulary.plain for token in tokens)
    read = tokenizer.text(tokens)
    # The checkpoints' tokenizer composes letters and their accents.
    assert read in (encodable(text), normalize("NFC", encodable(text)))
    assert b"".join(tokenizer.pieces[token] for token in tokens) == read.encode()


@given(data=st.data())
def test_special_tokens_are_read_by_name_between_plain_text(tokenizer, data):
    vocabulary = tokenizer.vocabulary
    pieces = data.draw(
        st.lists(st.one_of(st.sampled_from(MARKS), st.integers(0, MAX_AUDIO_CODE), st.text()), max_size=8)
    )
    ids = {name: token for token, name in vocabulary.marks.items()}
    tokens: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            tokens.append(vocabulary.id(piece))
        else:
            tokens += [ids[piece]] if piece in ids else tokenizer.plain(piece)
    assert tokenizer.text(tokens) == "".join(code_name(p) if isinstance(p, int) else p for p in pieces)


def test_bytes_that_are_no_text_are_marked(tokenizer):
    half = tokenizer.pieces.index("\N{EIGHTH NOTE}".encode()[:1])
    assert tokenizer.text([half, tokenizer.vocabulary.newline]) == "\N{REPLACEMENT CHARACTER}\n"
    assert tokenizer.text([tokenizer.vocabulary.size]) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("size", [100_000])
@pytest.mark.parametrize("unit", ["a", " ", "</think>", "é", "\n", "<|audio_code_5|>"])
def test_100_kilobytes_are_read(tokenizer, unit, size):
    text = unit * (size // len(unit))
    assert tokenizer.text(tokenizer.plain(text)) == text


def test_the_tokenizer_of_a_checkpoint_is_a_byte_tokenizer_with_merges(tokenizer):
    assert tokenizer.pieces[tokenizer.vocabulary.newline] == b"\n"
    assert {bytes([value]) for value in range(256)} <= set(tokenizer.pieces)


@given(code=st.integers(0, MAX_AUDIO_CODE))
def test_a_code_and_its_token_are_one_to_one(code):
    assert FULL_SIZE.code(FULL_SIZE.id(code)) == code


@pytest.mark.parametrize("vocabulary", [COMPACT, FULL_SIZE])
def test_what_is_no_code_is_refused(vocabulary: Vocabulary):
    for code in (-1, CODES):
        with pytest.raises(ValueError, match="0 to 63999"):
            vocabulary.id(code)
    for token in (*vocabulary.marks, vocabulary.codes.stop, vocabulary.size, vocabulary.codes.start - 1):
        with pytest.raises(ValueError, match="no audio code"):
            vocabulary.code(token)


def test_a_vocabulary_with_a_gap_or_a_missing_mark_is_refused():
    ids = {name: token for token, name in COMPACT.marks.items()}
    ids |= {code_name(code): COMPACT.first_code + code for code in range(CODES)}

    def read(changed: dict[str, int | None]) -> Vocabulary:
        return read_vocabulary((ids | changed).get, COMPACT.plain, COMPACT.newline, COMPACT.size)

    assert read({}) == COMPACT
    with pytest.raises(ValueError, match="no token <think>"):
        read({"<think>": None})
    with pytest.raises(ValueError, match="do not follow each other"):
        read({code_name(MAX_AUDIO_CODE): 5})
    with pytest.raises(ValueError, match="must follow each other"):
        read({"<|im_end|>": COMPACT.think})
    with pytest.raises(ValueError, match="must follow each other"):
        read({"<think>": 3})


def test_folders_without_such_a_tokenizer_are_named(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="no tokenizer"):
        HubPlannerTokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text("{")
    with pytest.raises(InvalidInputError, match="no tokenizer"):
        HubPlannerTokenizer(tmp_path)
    trained_backend(codes=10).save(str(file))
    with pytest.raises(InvalidInputError, match="audio_code_32000"):
        HubPlannerTokenizer(tmp_path)
    trained_backend(codes=0, marks=MARKS[:3]).save(str(file))
    with pytest.raises(InvalidInputError, match="no token"):
        HubPlannerTokenizer(tmp_path)
    with_marks(Tokenizer(models.BPE({"音": 0, "楽": 1}, [])), codes=0).save(str(file))
    with pytest.raises(InvalidInputError, match="as bytes"):
        HubPlannerTokenizer(tmp_path)
    parts = json.loads(trained_backend(codes=0).to_str())
    parts["model"]["vocab"]["音"] = len(parts["model"]["vocab"])
    file.write_text(json.dumps(parts | {"added_tokens": []}))
    with pytest.raises(InvalidInputError, match="not made of bytes"):
        HubPlannerTokenizer(tmp_path)
    parts["model"]["vocab"]["b"] = 10_000
    file.write_text(json.dumps(parts | {"added_tokens": []}))
    with pytest.raises(InvalidInputError, match="gaps"):
        HubPlannerTokenizer(tmp_path)


def test_vocabulary_and_merges_apart_are_read_too(tmp_path: Path):
    model = json.loads(trained_backend(codes=0).to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(map(" ".join, model["merges"])))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    with pytest.raises(InvalidInputError, match="audio_code_0"):  # Read to the end, and found to have no codes.
        HubPlannerTokenizer(tmp_path)


@pytest.mark.skipif(not CHECKPOINT, reason="ACESTEP_LM_FOLDER names no folder with a checkpoint's tokenizer")
def test_a_checkpoints_tokenizer_has_the_ids_of_training():
    """Ids of the stock Qwen3 tokenizer with 65,535 audio codes behind it."""
    real = checkpoint_tokenizer()
    vocabulary = real.vocabulary
    assert (vocabulary.pad, vocabulary.im_start, vocabulary.eos) == (151_643, 151_644, 151_645)
    assert (vocabulary.think, vocabulary.thought, vocabulary.newline) == (151_667, 151_668, 198)
    assert vocabulary.codes == range(151_669, 215_669)
    assert vocabulary.size == 217_204
    for text, tokens in {
        "bpm: 120\n": [65, 5187, 25, 220, 16, 17, 15, 198],
        "keyscale: G major\n": [10563, 2246, 25, 479, 3598, 198],
        "keyscale: F# minor\n": [10563, 2246, 25, 434, 2, 8922, 198],
        "timesignature: 4\n": [15136, 622, 1568, 25, 220, 19, 198],
        "duration:": [17021, 25],
        "caption:": [23347, 25],
        "language: en": [11528, 25, 662],
    }.items():
        assert real.plain(text) == tokens
