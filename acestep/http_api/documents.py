"""The documents that the server answers with."""

from enum import StrEnum
from typing import Any

import msgspec

from acestep.errors import Exit
from acestep.fused_adapter import FusedAdapter
from acestep.http_api.hidden_places import HiddenPlaces, without_places
from acestep.limits.plan import Plan
from acestep.serving.failures import FailedRun, FailureKind
from acestep.song import DecodePath
from acestep.stage import StageReport


class ErrorKind(StrEnum):
    """Why something was refused, or why a run failed: for one of the last six reasons."""

    TOKEN = "token"  # noqa: S105 - a word, not a secret
    ADDRESS = "address"
    UNKNOWN = "unknown"
    METHOD = "method"
    TYPE = "type"
    SIZE = "size"
    SLOW = "slow"
    BUSY = "busy"
    ENDING = "ending"
    INPUT = "input"
    FILE = "file"
    WEIGHTS = "weights"
    MEMORY = "memory"
    RUN = "run"
    UNEXPECTED = "unexpected"


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong and what to do, in a sentence.

    `exit_code` is the one with which `acestep generate` ends for such a problem, and `command` the one that helps.
    """

    kind: ErrorKind
    message: str
    exit_code: int = int(Exit.USAGE)
    command: str | None = None


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to everything that is refused."""

    error: ErrorAnswer


class UploadDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that requests can name by its `id` as `source_audio` or `reference_audio`."""

    id: str
    name: str
    size_bytes: int


class RequestState(StrEnum):
    """How far a request has come; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self not in (RequestState.WAITING, RequestState.RUNNING)


class SongDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One song; `url` is the path of its file on this server."""

    url: str
    size_bytes: int
    seed: int
    duration_s: float
    sample_rate: int
    peak_dbfs: float


class ResultDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The songs and how they were made, as in the document of `acestep generate --json`."""

    songs: tuple[SongDocument, ...]
    metadata: dict[str, str | int | float]
    adapters: tuple[FusedAdapter, ...]
    plan: Plan
    warnings: tuple[str, ...]
    songs_per_pass: int
    decode_path: DecodePath
    stages: tuple[StageReport, ...]


class RequestDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A request and its progress.

    `ahead` are the requests that are made before it. While it runs, `stage` is `loading`, `stopping` or a stage of the
    pipeline, of which `done` of `total` parts are done. `seconds` is how long it ran, once it has ended.
    """

    id: str
    state: RequestState
    ahead: int = 0
    stage: str | None = None
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    result: ResultDocument | None = None
    error: ErrorAnswer | None = None


_EXITS = {FailureKind.INPUT: Exit.USAGE, FailureKind.WEIGHTS: Exit.INVALID, FailureKind.FILE: Exit.INVALID}

UNEXPECTED = ErrorAnswer(
    kind=ErrorKind.UNEXPECTED,
    message="The server met an error that it did not expect; its operator finds it in the server's log.",
    exit_code=int(Exit.RUN_FAILED),
)


def problem_from(failure: FailedRun, places: HiddenPlaces) -> ErrorAnswer:
    """Return what is wrong with a run that failed, without the places of files."""
    return ErrorAnswer(
        kind=ErrorKind(failure.kind),
        message=without_places(failure.detail or UNEXPECTED.message, places),
        exit_code=int(_EXITS.get(failure.kind, Exit.RUN_FAILED)),
        command=failure.command,
    )


def result_of(document: dict[str, Any], songs: tuple[SongDocument, ...]) -> ResultDocument:
    """Return a result from the document that `acestep.api.write_songs` makes."""
    return msgspec.convert(document | {"songs": songs}, ResultDocument)
