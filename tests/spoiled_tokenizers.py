"""Ways to spoil the tokenizer of a folder, so that it would lose words of a text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def backend_json(folder: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return whole


def changed_by(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps(backend_json(folder) | changes))

    return change


def with_content(content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "tokenizer.json").write_bytes(content)

    return change


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


def with_model(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        changed_by(model=backend_json(folder)["model"] | changes)(folder)

    return change


def with_ids(number: Callable[[int], int]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        model = backend_json(folder)["model"]
        with_model(vocab={name: number(token) for name, token in model["vocab"].items()})(folder)

    return change


def without_a_byte(folder: Path) -> None:
    model = backend_json(folder)["model"]
    with_model(vocab={name: token for name, token in model["vocab"].items() if name != "a"}, merges=[])(folder)


def all_unknown(folder: Path) -> None:
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    changed_by(model=words)(folder)


SPOILED_TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "none": without_tokenizer,
    "empty": with_content(b""),
    "garbage": with_content(bytes(range(256)) * 40),
    "half a file": with_content(b'{"model": {"type": "BPE", "vocab": {'),
    "nested deeply": with_content(b"[" * 1_000_000),
    "another document": with_content(b"[]"),
    "ids beyond the embedding": with_ids(lambda token: token + 10**6),
    "ids beyond any integer": with_ids(lambda token: token + 10**30),
    "negative ids": with_ids(lambda token: -token),
    "one id for all": with_ids(lambda token: 0),
    "a byte without a token": without_a_byte,
    "words that are all unknown": all_unknown,
    "tokens chosen by chance": with_model(dropout=0.9),
    "no vocabulary": with_model(vocab={}, merges=[]),
    "merges of nothing": with_model(merges=[["never", "there"]]),
    "a normaliser that replaces words": changed_by(
        normalizer={"type": "Replace", "pattern": {"Regex": ".+"}, "content": ""}
    ),
    "a splitter that removes words": changed_by(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "."}, "behavior": "Removed", "invert": False}
    ),
    "no bytes": changed_by(pre_tokenizer=None),
    "an empty added token": changed_by(
        added_tokens=[
            {"id": 1, "content": "", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False}
        ]
    ),
}
ONLY_OF_A_TEXT_ENCODER: dict[str, Callable[[Path], None]] = {
    "a template without the text": changed_by(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"x": {"id": "x", "ids": [1], "tokens": ["x"]}},
        }
    ),
    "a template beyond the embedding": changed_by(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"x": {"id": "x", "ids": [10**9], "tokens": ["x"]}},
        }
    ),
}
