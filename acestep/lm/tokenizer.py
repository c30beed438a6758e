"""Text to a language model's tokens and back; text that a user writes never becomes a special token."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from acestep.checkpoints.tokenizer import encodable
from acestep.checkpoints.tokenizer_files import BYTE_LETTERS, load_backend
from acestep.errors import InvalidInputError
from acestep.lm.vocabulary import CODE_TOKENS, Vocabulary, code_name, read_vocabulary

COMPACT = Vocabulary(
    plain=256,
    pad=256,
    im_start=257,
    eos=258,
    think=259,
    thought=260,
    newline=10,
    first_code=261,
    size=261 + CODE_TOKENS,
)
"""Token ids for tiny models: byte values, special tokens and audio codes without gaps."""

FULL_SIZE = Vocabulary(
    plain=256,
    pad=151_643,
    im_start=151_644,
    eos=151_645,
    think=151_667,
    thought=151_668,
    newline=10,
    first_code=151_669,
    size=217_204,
)
"""Token ids for full-size models without files: byte values first, special tokens and audio codes where the checkpoints
have them.
"""


class PlannerTokenizer(Protocol):
    """What the planner needs from a tokenizer."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The meaning of each id."""
        ...

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes that each plain-text id stands for."""
        ...

    def plain(self, text: str) -> list[int]:
        """Return the ids of any text, none of them special: the name of a special token is spelled out like a word."""
        ...

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of ids, special ones by name; bytes that are not valid text become U+FFFD."""
        ...


class BytePlannerTokenizer:
    """One token for each UTF-8 byte: needs no files."""

    def __init__(self, vocabulary: Vocabulary = COMPACT) -> None:
        self.vocabulary = vocabulary
        self.pieces: Sequence[bytes] = tuple(bytes([value]) for value in range(256))

    def plain(self, text: str) -> list[int]:
        return list(encodable(text).encode("utf-8"))

    def text(self, tokens: Iterable[int]) -> str:
        return _spelled(tokens, self.pieces, self.vocabulary, {})


class HubPlannerTokenizer:
    """A checkpoint's own tokenizer, read from local files only; it never runs code from the folder.

    Raises `InvalidInputError` if the files contain no byte-level tokenizer with the special tokens and the audio codes.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        backend = load_backend(folder)
        # The checkpoints' thinking marks and audio codes are added tokens of the ordinary kind. Only a copy of the
        # tokenizer without them can encode text without ever producing one.
        self._encoder: Any = Tokenizer(backend.model)
        self._encoder.normalizer = backend.normalizer
        self._encoder.pre_tokenizer = backend.pre_tokenizer
        self._names = {token: str(added.content) for token, added in backend.get_added_tokens_decoder().items()}
        try:
            self.pieces: Sequence[bytes] = _pieces(self._encoder, self._names)
            newline = self.plain("\n")
            if len(newline) != 1:
                raise ValueError("a line feed is not one token of it")
            self.vocabulary = read_vocabulary(
                backend.token_to_id, len(self.pieces), newline[0], backend.get_vocab_size(with_added_tokens=True)
            )
        except ValueError as error:
            raise InvalidInputError(folder, f"holds no tokenizer of a 5 Hz language model: {error}") from error
        if any(token >= len(self.pieces) for name in self.vocabulary.marks.values() for token in self.plain(name)):
            raise InvalidInputError(folder, "holds a tokenizer that makes special tokens of plain text")

    def plain(self, text: str) -> list[int]:
        return list(self._encoder.encode(encodable(text), add_special_tokens=False).ids)

    def text(self, tokens: Iterable[int]) -> str:
        return _spelled(tokens, self.pieces, self.vocabulary, self._names)


def _pieces(encoder: Any, added: Mapping[int, str]) -> tuple[bytes, ...]:
    """Return the bytes of each id below the added tokens, from the names in the byte-level tokenizer."""
    ids = encoder.get_vocab_size()
    plain = min(ids, *added) if added else ids
    names = [encoder.id_to_token(token) for token in range(plain)]
    if None in names or any(token not in added for token in range(plain, ids)):
        raise ValueError("the ids of its plain text have gaps")
    try:
        return tuple(name.translate(BYTE_LETTERS).encode("latin-1") for name in names)
    except UnicodeEncodeError as error:
        raise ValueError(f"its tokens are not made of bytes: {error.object!r}") from error


def _spelled(tokens: Iterable[int], pieces: Sequence[bytes], vocabulary: Vocabulary, names: Mapping[int, str]) -> str:
    marks = vocabulary.marks
    codes = range(vocabulary.first_code, vocabulary.first_code + CODE_TOKENS)
    spelled = bytearray()
    for token in tokens:
        if token in marks:
            spelled += marks[token].encode()
        elif token in codes:
            spelled += code_name(token - codes.start).encode()
        elif token < len(pieces):
            spelled += pieces[token]
        else:
            spelled += names.get(token, "\N{REPLACEMENT CHARACTER}").encode()
    return spelled.decode("utf-8", errors="replace")
