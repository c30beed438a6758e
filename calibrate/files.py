"""Results as text: digests, and the JSON that is committed."""

import csv
import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's JSON with sorted keys and no spaces: equal values have equal digests."""
    return "sha256:" + hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def pretty_json(value: Any) -> str:
    """Return a value as the JSON that is committed: two spaces, fields in declared order, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV under a line of `columns`; a text that a spreadsheet would run as a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        formulas = {name for name, value in row.items() if isinstance(value, str) and value.startswith(tuple("=+-@"))}
        writer.writerow({name: f"'{value}" if name in formulas else value for name, value in row.items()})
    return text.getvalue()


@contextmanager
def output_file(target: Path | None) -> Iterator[Callable[[str], None]]:
    """Gives a function that puts a text in `target`, whole or not at all; with no target it does nothing.

    A file beside the target is opened first, so that a path that cannot be written is a `UsageError` before any work;
    so is a device or a pipe, which renaming would replace. A symbolic link stays, and what it points to is written.
    Writing raises `RunFailedError` when the disk refuses; without a write the target stays as it was.
    """
    if target is None:
        yield lambda _: None
        return
    try:
        place = _place_of(target)
        beside = place.with_name(f".{place.name}.{os.getpid()}.part")
        beside.touch()
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; choose another path") from None

    def write(text: str) -> None:
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
        except OSError as error:
            raise RunFailedError(f"could not write {target}: {error.strerror}; free some space and retry") from None

    try:
        yield write
    finally:
        beside.unlink(missing_ok=True)


def _place_of(target: Path) -> Path:
    """The file that `target` is or leads to, which need not exist yet; `OSError` for what is there and is no file."""
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
    return target.resolve()
