"""Results on disk: digests, committed JSON, and files written beside their target and renamed."""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from acestep.errors import RunFailedError, UsageError


def digest(value: Any) -> str:
    """SHA-256 of a value's JSON with sorted keys and no spaces: equal values have equal digests."""
    return "sha256:" + hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def pretty_json(value: Any) -> str:
    """A value as the JSON that is committed: two spaces, fields in declared order, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


class OutputFile:
    """A result that appears whole or not at all.

    Entering opens a file beside the target, so that a path that cannot be written is a `UsageError` before any work.
    Leaving without `write` leaves the target as it was.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._beside = target.with_name(f".{target.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        if self._target.is_dir():
            raise UsageError(f"{self._target} is a folder; give the name of a file to write")
        try:
            self._beside.touch()
        except OSError as error:
            raise UsageError(f"cannot write {self._target}: {error.strerror}; choose another path") from None
        return self

    def write(self, text: str) -> None:
        """Put `text` in the target; `RunFailedError` when the disk refuses it."""
        try:
            with self._beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            self._beside.replace(self._target)
        except OSError as error:
            raise RunFailedError(
                f"could not write {self._target}: {error.strerror}; free some space and retry"
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beside.unlink(missing_ok=True)
