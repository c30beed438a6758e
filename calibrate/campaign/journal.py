"""Stores every answer of a campaign when it arrives, so that an interrupted campaign can be resumed.

The first line says what the answers are valid for; every other line is a question with its answer and a digest. An
incomplete line is ignored. A run that ended without an answer is stored with the reason, and asked for again. Lines
also say which cards have answered so far, because another run, on other cards, may go on.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from acestep.errors import InvalidInputError, RunFailedError, UsageError
from calibrate.campaign.lock import Lock
from calibrate.executors.questions import JournalEntry, Probed, ProbeTask
from calibrate.files import digest
from calibrate.fingerprint import Fingerprint
from calibrate.probes.base import UNCONDITIONED, CardConditions, worst_of

JOURNAL_SUFFIX = ".journal.jsonl"
"""The suffix of a journal's name after the name of the measurement file."""


_AS_IT_IS: int = getattr(os, "O_BINARY", 0)
"""Without this flag Windows would write two characters for every line end."""


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fingerprint: Fingerprint


class AnsweredBy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The cards that answered, by digests of their UUIDs, and the worst conditions of their probes."""

    serials: tuple[str, ...] = ()
    conditions: CardConditions = UNCONDITIONED

    def and_by(self, others: "AnsweredBy") -> "AnsweredBy":
        """Return both together."""
        return AnsweredBy(
            serials=tuple(sorted({*self.serials, *others.serials})),
            conditions=worst_of([self.conditions, others.conditions]),
        )


UNKNOWN_CARDS: Final = AnsweredBy()
"""Those of a simulation."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`by` are all cards so far, where they differ from those of the line before."""

    key: str
    entry: JournalEntry
    by: AnsweredBy = UNKNOWN_CARDS


def journal_path(output: Path) -> Path:
    """The path of a measurement file's journal: next to it."""
    return output.with_name(output.name + JOURNAL_SUFFIX)


class Journal:
    """Answers on disk; `entries` are those that were already there, `count` is the number of all so far.

    `by` are the cards of all runs that wrote into it.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint, *, resume: bool) -> None:
        """Raises `UsageError` for a journal that exists without `resume`, belongs to other code, or cannot be written.

        Raises `InvalidInputError` for a file that is not a journal.
        """
        self.path = path
        self._fingerprint = fingerprint
        with ExitStack() as opened:
            try:
                # The lock would make the folder.
                path.parent.stat()
                # Two runs that write to one journal would destroy each other's answers, and one that reads what another
                # still writes would lose the last of them.
                opened.callback(Lock(path).release)
            except OSError as error:
                raise unwritable(path, error) from None
            text = _read(path)
            whole = text[: text.rfind(b"\n") + 1]
            lines = whole.splitlines()
            if lines[1:] and not resume:
                raise UsageError(
                    f"{path} has {len(lines) - 1} answers of a run that did not end; go on with --resume, or delete it"
                )
            self.by = UNKNOWN_CARDS
            self.entries: Mapping[ProbeTask, JournalEntry] = dict(self._entries(lines))
            self.count = len(self.entries)
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o644)
                opened.callback(os.close, self._file)
                os.ftruncate(self._file, len(whole))
            except OSError as error:
                raise unwritable(path, error) from None
            self._end = len(whole)
            if not lines:
                self._write(msgspec.json.encode(_Head(fingerprint=fingerprint)) + b"\n")
            self._open = opened.pop_all()

    def keep(self, entry: JournalEntry, by: AnsweredBy = UNKNOWN_CARDS) -> None:
        """Write an answer to disk, and by which cards it and those before were given.

        Raises `RunFailedError` if that fails, with all earlier answers intact.
        """
        together = self.by.and_by(by)
        said = UNKNOWN_CARDS if together == self.by else together
        line = _Line(key=_key(self._fingerprint, entry, said), entry=entry, by=said)
        self._write(msgspec.json.encode(line) + b"\n")
        self.by = together
        self.count += not isinstance(entry, Probed) or entry.probe.verdict.answers

    def close(self) -> None:
        """Close the file so that the next run can use it; safe to call again."""
        self._open.close()

    def remove(self) -> None:
        """Delete the journal after the measurement file was written."""
        # Windows cannot delete an open file.
        self.close()
        self.path.unlink()

    def _entries(self, lines: list[bytes]) -> Iterator[tuple[ProbeTask, JournalEntry]]:
        for number, line in enumerate(lines, 1):
            try:
                if number == 1:
                    self._require_ours(msgspec.json.decode(line, type=_Head).fingerprint)
                    continue
                read = msgspec.json.decode(line, type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InvalidInputError(
                    self.path, f"line {number} is not an entry of a journal ({error}); delete it"
                ) from None
            if read.key != _key(self._fingerprint, read.entry, read.by):
                raise InvalidInputError(self.path, f"line {number} was changed after it was written; delete the file")
            self.by = self.by.and_by(read.by)
            if not isinstance(read.entry, Probed) or read.entry.probe.verdict.answers:
                yield read.entry.task, read.entry

    def _require_ours(self, theirs: Fingerprint) -> None:
        if differences := "; ".join(self._fingerprint.differences(theirs)):
            raise UsageError(
                f"{self.path} cannot be continued, because its answers hold for something else: {differences}. Delete"
                " it to begin again"
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
    """The journal of a measurement file in progress; the file stays unless `remove` is called."""
    journal = Journal(journal_path(output), fingerprint, resume=resume)
    try:
        yield journal
    finally:
        journal.close()


def unwritable(path: Path, error: OSError) -> UsageError:
    """Return what to say of a file that cannot be opened for writing, or that another run holds."""
    why = "another run is writing it" if isinstance(error, BlockingIOError) else error.strerror
    return UsageError(f"cannot write {path}: {why}; choose another path")


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


def _key(fingerprint: Fingerprint, entry: JournalEntry, by: AnsweredBy) -> str:
    return digest((fingerprint, entry) if by == UNKNOWN_CARDS else (fingerprint, entry, by))
