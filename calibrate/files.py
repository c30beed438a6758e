"""Results on disk: digests, committed JSON, and files that are replaced atomically."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from acestep.errors import RunFailedError, UsageError


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's JSON with sorted keys and no spaces: equal values have equal digests."""
    return "sha256:" + hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def pretty_json(value: Any) -> str:
    """Return a value as the JSON that is committed: two spaces, fields in declared order, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


@contextmanager
def output_file(target: Path | None) -> Iterator[Callable[[str], None]]:
    """A context with a function that writes a text to `target` atomically; without a target it does nothing.

    A file next to the target is opened first, so that a path that cannot be written is a `UsageError` before any work;
    so is a device or a pipe, which renaming would replace. A symbolic link stays, and its destination is written.
    Writing raises `RunFailedError` if the disk refuses; without a write the target stays unchanged.
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
    """Return the file that `target` is or links to, which may be missing.

    Raises `OSError` if it is not a regular file.
    """
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
    return target.resolve()
