"""Text to token ids: a byte-level tokenizer built in code, and the checkpoints' own behind the same call."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from acestep.checkpoints.tokenizer_files import library_errors, load_backend
from acestep.errors import InvalidInputError

SPECIAL_TOKENS: Mapping[str, int] = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
"""Special tokens of the byte-level tokenizer, after the 256 byte values."""

_MOST_ADDED: Final = 8
"""Tokens that a tokenizer may add to a text: published ones add at most a beginning and an end."""

_SAMPLE: Final = "Drums, 90 bpm: la la\n"
"""A text from which one sees what a tokenizer adds."""

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


class HubTokenizer:
    """The tokenizer in a text encoder's folder, whose embedding has `vocabulary` tokens; local files alone are read.

    Raises `InvalidInputError` for a tokenizer that cannot be read, that loses the words of a text, or that makes tokens
    beyond the embedding.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._folder = folder
        self._backend: Any = load_backend(folder)
        if (last := max(self._backend.get_vocab(with_added_tokens=True).values())) >= vocabulary:
            raise InvalidInputError(
                folder, f"holds a tokenizer with token {last:,}, and the text encoder has {vocabulary:,} tokens"
            )
        with library_errors(folder):
            plain, whole = (self._backend.encode(_SAMPLE, add_special_tokens=added).ids for added in (False, True))
        added = len(whole) - len(plain)
        starts = [start for start in range(added + 1) if whole[start : start + len(plain)] == plain]
        if not plain or not starts or added > _MOST_ADDED or max(whole) >= vocabulary:
            raise InvalidInputError(folder, "holds a tokenizer that loses the words of a text or adds too many tokens")
        self._before, self._after = whole[: starts[0]], whole[starts[0] + len(plain) :]

    def encode(self, text: str, max_tokens: int | None = None) -> list[int]:
        """The token ids of `text`, the tokenizer's own end tokens included, cut to `max_tokens`."""
        with library_errors(self._folder):
            plain: list[int] = self._backend.encode(encodable(text), add_special_tokens=False).ids
        own = len(self._before) + len(self._after)
        kept = plain if max_tokens is None else plain[: max(0, max_tokens - own)]
        return [*self._before, *kept, *self._after][:max_tokens]
