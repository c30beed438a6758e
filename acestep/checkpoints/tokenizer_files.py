"""Byte-level tokenizers from unknown files, read by the tokenizers library after a look at what they would do.

The published checkpoints all have the byte-level BPE of Qwen. Other kinds may lose the words of a text, so they are
refused. No setting beside the tokenizer is read, and no code from the folder is run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from acestep.checkpoints.configs import MAX_JSON_BYTES, read_config, shortened
from acestep.errors import InvalidInputError, first_line
from acestep.regular_file import is_file

WHOLE_FILE = "tokenizer.json"
"""The file with everything; it loads many times faster than separate vocabulary and merges files."""

_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the tokenizer of Qwen2 and Qwen3 splits text before the merges; a whole file contains its own."""

_LONGEST_PATTERN = 1_000


class _Nfc(msgspec.Struct, frozen=True, tag_field="type", tag="NFC"):
    """Composes letters and their accents."""


class _ByteLevel(msgspec.Struct, frozen=True, tag_field="type", tag="ByteLevel"):
    """Writes each byte as a letter."""


class _Split(msgspec.Struct, frozen=True, tag_field="type", tag="Split"):
    """Cuts a text into words; no other behaviour keeps all of it."""

    pattern: dict[Literal["Regex", "String"], str]
    behavior: Literal["Isolated"]
    invert: bool = False

    def __post_init__(self) -> None:
        if any(len(pattern) > _LONGEST_PATTERN for pattern in self.pattern.values()):
            raise ValueError(f"a pattern has more than {_LONGEST_PATTERN:,} characters")


class _Normalizers(msgspec.Struct, frozen=True, tag_field="type", tag="Sequence"):
    normalizers: Annotated[tuple[_Nfc, ...], msgspec.Meta(max_length=4)]


class _PreTokenizers(msgspec.Struct, frozen=True, tag_field="type", tag="Sequence"):
    pretokenizers: Annotated[tuple[_ByteLevel | _Split, ...], msgspec.Meta(max_length=4)]


class _Bpe(msgspec.Struct, frozen=True):
    type: Literal["BPE"]
    dropout: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None


class _Added(msgspec.Struct, frozen=True):
    content: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class _Whole(msgspec.Struct, frozen=True):
    """What is looked at in a whole file: all that could make it lose text, or choose its tokens by chance."""

    model: _Bpe
    normalizer: _Nfc | _Normalizers | None = None
    pre_tokenizer: _ByteLevel | _PreTokenizers | None = None
    added_tokens: tuple[_Added, ...] = ()

    def __post_init__(self) -> None:
        steps = self.pre_tokenizer.pretokenizers if isinstance(self.pre_tokenizer, _PreTokenizers) else ()
        if not any(isinstance(step, _ByteLevel) for step in (self.pre_tokenizer, *steps)):
            raise ValueError("it does not write a text as bytes")


def load_backend(folder: Path) -> Any:
    """Return the byte-level tokenizer in a folder, without truncation and padding.

    Raises `InvalidInputError` if there is none, or one that maps different texts to the same tokens.
    """
    from tokenizers import Tokenizer

    whole = folder / WHOLE_FILE
    if is_file(whole):
        _require_known(whole)
        with library_errors(whole):
            backend = Tokenizer.from_file(str(whole))
    elif is_file(folder / "vocab.json"):
        backend = _from_parts(folder)
    else:
        raise InvalidInputError(folder, f"holds no tokenizer: neither {WHOLE_FILE} nor vocab.json with merges.txt")
    with library_errors(folder):
        backend.no_truncation()
        backend.no_padding()
        plain = backend.get_vocab(with_added_tokens=False)
        # Everything that is looked up before the first text is encoded.
        everything = backend.get_vocab(with_added_tokens=True)
    if missing := [letter for letter in map(chr, BYTE_LETTERS) if letter not in plain]:
        problem = f"{len(missing)} of 256 bytes have no token"
    elif len(set(everything.values())) < len(everything):
        problem = "two of its tokens have one id"
    else:
        return backend
    raise InvalidInputError(folder, f"holds no tokenizer that keeps the words of a text: {problem}")


@contextmanager
def library_errors(source: Path) -> Iterator[None]:
    """Raise whatever the tokenizers library raises as `InvalidInputError`; it has no narrower class."""
    try:
        yield
    except (InvalidInputError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise InvalidInputError(source, f"is no tokenizer ({shortened(first_line(error))})") from error


def _require_known(whole: Path) -> None:
    if (size := whole.stat().st_size) > MAX_JSON_BYTES:
        raise InvalidInputError(whole, f"is no tokenizer: it has {size:,} bytes, at most {MAX_JSON_BYTES:,} are read")
    try:
        msgspec.json.decode(whole.read_bytes(), type=_Whole)
    except OSError as error:
        raise InvalidInputError(whole, f"cannot be read ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(whole, f"is no tokenizer of bytes as the published ones are ({error})") from error


def _from_parts(folder: Path) -> Any:
    """The tokenizer of a vocabulary and its merges, with the added tokens of the files beside them."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not is_file(merges):
        raise InvalidInputError(folder, "holds no tokenizer: vocab.json without merges.txt")
    for file in (vocabulary, merges):
        if file.stat().st_size > MAX_JSON_BYTES:
            raise InvalidInputError(file, f"is larger than {MAX_JSON_BYTES:,} bytes and no part of a tokenizer")
    with library_errors(folder):
        backend = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        backend.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated", invert=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
        backend.decoder = decoders.ByteLevel()
        for token, name in sorted(_added(folder).items()):
            backend.add_tokens([AddedToken(name, normalized=False)])
            if backend.token_to_id(name) != token:
                raise InvalidInputError(folder, f"holds a tokenizer whose ids have gaps: {shortened(name)} is {token}")
    return backend


def _added(folder: Path) -> Mapping[int, str]:
    if is_file(settings := folder / "tokenizer_config.json"):
        found = read_config(settings).get("added_tokens_decoder")
        if isinstance(found, dict):
            return _numbered(
                settings, {token: of.get("content") for token, of in found.items() if isinstance(of, dict)}
            )
    if is_file(names := folder / "added_tokens.json"):
        return _numbered(names, {token: name for name, token in read_config(names).items()})
    return {}


def _numbered(source: Path, names: Mapping[Any, Any]) -> dict[int, str]:
    try:
        return msgspec.convert(names, dict[int, str], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(source, f"names no tokens by their ids ({error})") from error


def _byte_letters() -> dict[int, int]:
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [value for value in range(256) if value not in printable]
    return {value: value for value in printable} | {256 + place: value for place, value in enumerate(others)}


BYTE_LETTERS: Mapping[int, int] = _byte_letters()
"""Letter -> the byte for which it stands in the names of a byte-level tokenizer; printable bytes are themselves."""
