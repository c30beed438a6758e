"""Every answer of a campaign, written down as it comes: what is left of one that was killed, to go on with.

The first line says what the answers hold for; every other is a question with its answer, under the digest of all that.
A line that was not finished counts for nothing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError, RunFailedError, UsageError
from calibrate.campaign.lock import Lock
from calibrate.executors.questions import JournalEntry, ProbeTask
from calibrate.files import digest
from calibrate.fingerprint import Fingerprint

JOURNAL_SUFFIX = ".journal.jsonl"
"""What a journal's name has more than that of the file it will become."""


_AS_IT_IS: int = getattr(os, "O_BINARY", 0)
"""Windows would otherwise write two characters for every end of a line."""


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fingerprint: Fingerprint


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str
    entry: JournalEntry


def journal_path(output: Path) -> Path:
    """Where the journal of a measurement file lies: beside it."""
    return output.with_name(output.name + JOURNAL_SUFFIX)


class Journal:
    """Answers on disk; `entries` are those that were there."""

    def __init__(self, path: Path, fingerprint: Fingerprint, *, resume: bool) -> None:
        """Raises `UsageError` for one that is there and was not asked for, or of other code, or cannot be written.

        Raises `InvalidInputError` for a file that is no journal.
        """
        self.path = path
        self._fingerprint = fingerprint
        text = _read(path)
        whole = text[: text.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if lines[1:] and not resume:
            raise UsageError(
                f"{path} has {len(lines) - 1} answers of a run that did not end; go on with --resume, or delete it"
            )
        self.entries: Mapping[ProbeTask, JournalEntry] = dict(self._entries(lines))
        self._open = ExitStack()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o644)
            self._open.callback(os.close, self._file)
            # Two runs that write to one journal would each spoil the answers of the other.
            self._open.callback(Lock(path).release)
            os.ftruncate(self._file, len(whole))
        except OSError as error:
            self._open.close()
            why = "another run is writing it" if isinstance(error, BlockingIOError) else error.strerror
            raise UsageError(f"cannot write {path}: {why}; choose another path") from None
        self._end = len(whole)
        if not lines:
            self._write(msgspec.json.encode(_Head(fingerprint=fingerprint)) + b"\n")

    def keep(self, entry: JournalEntry) -> None:
        """Write an answer down for good; `RunFailedError` when the disk refuses, with all before it intact."""
        line = _Line(key=_key(self._fingerprint, entry), entry=entry)
        self._write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Leave it to the next run; safe to call again."""
        self._open.close()

    def remove(self) -> None:
        """It has become a measurement file."""
        # Windows removes no file that is open.
        self.close()
        self.path.unlink()

    def _entries(self, lines: list[bytes]) -> Iterator[tuple[ProbeTask, JournalEntry]]:
        for number, line in enumerate(lines, 1):
            try:
                if number == 1:
                    self._require_ours(msgspec.json.decode(line, type=_Head).fingerprint)
                    continue
                read = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError as error:
                raise InvalidInputError(self.path, f"line {number} is none of a journal ({error}); delete it") from None
            if read.key != _key(self._fingerprint, read.entry):
                raise InvalidInputError(self.path, f"line {number} was changed after it was written; delete the file")
            yield read.entry.task, read.entry

    def _require_ours(self, theirs: Fingerprint) -> None:
        if differences := "; ".join(self._fingerprint.differences(theirs)):
            raise UsageError(
                f"{self.path} cannot be gone on with, its answers hold for something else: {differences}. Delete it to"
                " begin again"
            )

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += _write_at(self._file, line[written:], self._end + written)
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise RunFailedError(
                f"could not write {self.path}: {error.strerror}; free some space and go on with --resume"
            ) from None
        self._end += len(line)


@contextmanager
def open_journal(output: Path, fingerprint: Fingerprint, *, resume: bool) -> Iterator[Journal]:
    """The journal of a measurement file that is being made; it stays unless it is removed."""
    journal = Journal(journal_path(output), fingerprint, resume=resume)
    try:
        yield journal
    finally:
        journal.close()


def _write_at(file: int, line: bytes, place: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, line, place)
    os.lseek(file, place, os.SEEK_SET)
    return os.write(file, line)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InvalidInputError(path, f"cannot be read ({error.strerror})") from None


def _key(fingerprint: Fingerprint, entry: JournalEntry) -> str:
    return digest((fingerprint, entry))
