"""Checks in milliseconds whether a checkpoint's files are complete: no weights are read and torch is not imported."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from acestep.checkpoints.catalog import find
from acestep.checkpoints.configs import has_parts, parts_in, read_config, shortened
from acestep.checkpoints.header import read_header
from acestep.checkpoints.tokenizer_files import WHOLE_FILE
from acestep.checkpoints.weight_files import weight_files
from acestep.errors import InvalidInputError
from acestep.regular_file import open_regular

SILENCE_FILE = "silence_latent.pt"
"""The encoded silence, which an original checkpoint of a DiT keeps beside its weights."""

_READS_WORDS = "qwen3"
"""The kind of model that needs a tokenizer: the text encoder and the language models."""

_ENDS = 64
"""Bytes at the beginning and at the end of a file that are looked at."""

_ONLY_IN_DIT = "timbre_hidden_dim"
"""A field of the configuration that only a DiT has, and not the VAE, the text encoder and the language models."""


def flaws(folder: Path) -> tuple[InvalidInputError, ...]:
    """Return what is missing, empty or cut short in a checkpoint's folder, of any kind and layout.

    One error for each file. The VAE and text encoder that a DiT in the original layout shares with others are not
    checked.
    """
    found = {str(flaw.source): flaw for flaw in _flaws(folder)}
    return tuple(found.values())


def require_intact(folder: Path) -> None:
    """Raise `InvalidInputError` for the first flaw of a checkpoint's folder, with what to do."""
    for flaw in flaws(folder):
        raise with_remedy(flaw, folder)


def with_remedy(flaw: InvalidInputError, folder: Path) -> InvalidInputError:
    """Return a flaw of a checkpoint's folder, with what to do."""
    return InvalidInputError(flaw.source, f"{flaw.problem}; {remedy(folder)}")


def remedy(folder: Path) -> str:
    """Return the command or advice that repairs the checkpoint in a folder."""
    checkpoint = find(folder.name)
    if checkpoint is None:
        return "fetch it again from where you have it"
    return f"fetch it again with: acestep download {checkpoint.called}"


def _flaws(folder: Path) -> Iterator[InvalidInputError]:
    if not has_parts(folder):
        yield from _flaws_of_part(folder)
        yield from _flaws_of_silence(folder)
        yield from _flaws_of_words(folder)
        return
    unreadable = _raised(lambda: parts_in(folder))
    yield from unreadable
    if not unreadable:
        for part in (*parts_in(folder), "vae", "text_encoder"):
            yield from _flaws_of_part(folder / part)
        yield from _flaws_of_tokenizer(folder / "tokenizer")


def _flaws_of_part(folder: Path) -> Iterator[InvalidInputError]:
    yield from _raised(lambda: read_config(folder / "config.json"))
    missing = _raised(lambda: weight_files(folder))
    yield from missing
    files = () if missing else weight_files(folder)
    if not missing and not files:
        yield InvalidInputError(folder, _why_without_weights(folder))
    if len(files) == 1:
        yield from _raised(lambda: read_header(files[0]))
    elif files:
        places = read_config(files[0])["weight_map"]
        named: dict[str, list[str]] = {shard.name: [] for shard in files[1:]}
        for name, file in places.items():
            named[file].append(name)
        for shard in files[1:]:
            yield from _raised(partial(_require_tensors, shard, named[shard.name]))


def _require_tensors(file: Path, named: list[str]) -> None:
    held = read_header(file)
    if lacking := [name for name in named if name not in held]:
        raise InvalidInputError(file, f"lacks {shortened(lacking[0])}, which its index says is there")


def _why_without_weights(folder: Path) -> str:
    """The hub's library keeps the finished parts of a download in its own folder, here or one level up."""
    caches = (folder / ".cache", folder.parent / ".cache" / "huggingface" / "download" / folder.name)
    arrived = [file for place in (folder, *caches) for file in place.rglob("*.incomplete")]
    return "has no weights; its download was interrupted" if arrived else "has no weights (*.safetensors)"


def _flaws_of_silence(folder: Path) -> Iterator[InvalidInputError]:
    with suppress(InvalidInputError):  # already reported
        if _ONLY_IN_DIT in read_config(folder / "config.json"):
            yield from _raised(lambda: _require_silence(folder / SILENCE_FILE))


def _flaws_of_words(folder: Path) -> Iterator[InvalidInputError]:
    with suppress(InvalidInputError):  # already reported
        if read_config(folder / "config.json").get("model_type") == _READS_WORDS:
            yield from _flaws_of_tokenizer(folder)


def _flaws_of_tokenizer(folder: Path) -> Iterator[InvalidInputError]:
    """Its content is looked at when it is loaded; here only its ends, which a file that is cut short lacks."""
    names = (WHOLE_FILE,) if (folder / WHOLE_FILE).exists() else ("vocab.json", "merges.txt")
    for name in names:
        yield from _raised(partial(_require_ends, folder / name))


def _require_ends(file: Path) -> None:
    try:
        with open_regular(file) as opened:
            begin = opened.read(_ENDS)
            opened.seek(max(0, opened.seek(0, 2) - _ENDS))
            end = opened.read()
    except FileNotFoundError:
        raise InvalidInputError(file, "is missing, and words cannot be read without a tokenizer") from None
    except OSError as error:
        raise InvalidInputError(file, f"cannot be read ({error.strerror})") from None
    if not begin:
        raise InvalidInputError(file, "is empty (0 bytes)")
    if file.suffix == ".json" and not (begin.lstrip().startswith(b"{") and end.rstrip().endswith(b"}")):
        raise InvalidInputError(file, "is damaged or cut short: it is not a whole JSON object")


def _require_silence(file: Path) -> None:
    try:
        size = file.stat().st_size
        with open_regular(file) as opened:
            mark = opened.read(2)
    except OSError as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InvalidInputError(file, f"{problem}, and songs without it drone") from None
    if size == 0:
        raise InvalidInputError(file, "is empty (0 bytes)")
    # PyTorch writes archives; old releases wrote pickles.
    if mark != b"PK" and not mark.startswith(b"\x80"):
        raise InvalidInputError(file, "is damaged: it holds no tensor")
    if mark == b"PK":
        # Its import takes a tenth of a command's time.
        from zipfile import is_zipfile

        if not is_zipfile(file):
            raise InvalidInputError(file, "is cut short")


def _raised(check: Callable[[], object]) -> list[InvalidInputError]:
    try:
        check()
    except InvalidInputError as flaw:
        return [flaw]
    return []
