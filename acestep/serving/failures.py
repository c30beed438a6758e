"""Why a run failed: the page's sentence in its own language, next to the error's English sentence."""

from enum import StrEnum

import msgspec

from acestep.errors import AceStepError, InvalidInputError, MissingWeightsError, NotEnoughMemoryError, UsageError


class FailureKind(StrEnum):
    """The reasons with a sentence in every language, named ``failed_`` and the kind."""

    WEIGHTS = "weights"
    CAPTION = "caption"
    SOURCE = "source"
    MEMORY = "memory"
    INPUT = "input"
    FILE = "file"
    RUN = "run"
    UNEXPECTED = "unexpected"
    NOT_STARTED = "not_started"
    DISCONNECTED = "disconnected"


class FailedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run failed. `detail` is the English sentence of the error and `command` the remedy, if there are any."""

    kind: FailureKind
    detail: str | None = None
    command: str | None = None


class MissingSourceError(UsageError):
    """A task that works on a song was requested without the song."""


class MissingCaptionError(UsageError):
    """A song was requested without a description."""


def failure_of(error: BaseException) -> FailedRun:
    """Return the failure that corresponds to an error of a run."""
    detail = str(error)
    match error:
        case MissingWeightsError():
            return FailedRun(kind=FailureKind.WEIGHTS, detail=detail, command=error.command)
        # The translated sentences contain everything.
        case MissingCaptionError():
            return FailedRun(kind=FailureKind.CAPTION)
        case MissingSourceError():
            return FailedRun(kind=FailureKind.SOURCE)
        case NotEnoughMemoryError():
            return FailedRun(kind=FailureKind.MEMORY, detail=detail)
        case UsageError():
            return FailedRun(kind=FailureKind.INPUT, detail=detail)
        case InvalidInputError():
            return FailedRun(kind=FailureKind.FILE, detail=detail)
        case AceStepError():
            return FailedRun(kind=FailureKind.RUN, detail=detail)
    if isinstance(error, MemoryError) or _ran_out(error):
        return FailedRun(kind=FailureKind.MEMORY, detail=detail.partition("\n")[0])
    # The error's text is for developers: it is in the terminal, with its traceback.
    return FailedRun(kind=FailureKind.UNEXPECTED)


def _ran_out(error: BaseException) -> bool:
    from acestep.devices.out_of_memory import ran_out

    return ran_out(error)
