"""Text to token ids: a byte-level tokenizer built in code, and the checkpoints' own behind the same call."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from acestep.errors import InvalidInputError

SPECIAL_TOKENS: Mapping[str, int] = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
"""Special tokens of the byte-level tokenizer, after the 256 byte values."""

_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")


class Tokenizer(Protocol):
    """The functions of a tokenizer that the pipeline uses."""

    def encode(self, text: str, max_tokens: int | None = None) -> list[int]:
        """The token ids of `text`, cut to `max_tokens`."""


def encodable(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer can encode, replaced by question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


class ByteTokenizer:
    """One token a UTF-8 byte, and the special tokens as one each: needs no files."""

    def encode(self, text: str, max_tokens: int | None = None) -> list[int]:
        ids: list[int] = []
        for piece in _SPECIAL.split(encodable(text)):
            ids.extend([SPECIAL_TOKENS[piece]] if piece in SPECIAL_TOKENS else piece.encode("utf-8"))
        return ids[:max_tokens]


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in a folder, as transformers reads it; raise `InvalidInputError` if it cannot.

    Only local files are read, and no code from the folder is run.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(folder, f"holds no tokenizer that transformers can read ({error})") from error


class HubTokenizer:
    """A checkpoint's own tokenizer, read from local files only; it never runs code from the folder."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)

    def encode(self, text: str, max_tokens: int | None = None) -> list[int]:
        """The token ids of `text`, the tokenizer's own end tokens included, cut to `max_tokens`."""
        encoded = self._tokenizer(
            encodable(text), truncation=max_tokens is not None, max_length=max_tokens, verbose=False
        )
        return list(encoded["input_ids"])
