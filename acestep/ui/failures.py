"""Why a run failed: what the page says about it in its own language, beside the error's own English sentence."""

from enum import StrEnum

import msgspec

from acestep.errors import AceStepError, InvalidInputError, MissingWeightsError, NotEnoughMemoryError, UsageError


class FailureKind(StrEnum):
    """The reasons that have a sentence in every language, ``failed_`` and the kind."""

    WEIGHTS = "weights"
    SOURCE = "source"
    MEMORY = "memory"
    INPUT = "input"
    FILE = "file"
    RUN = "run"
    UNEXPECTED = "unexpected"
    NOT_STARTED = "not_started"
    DISCONNECTED = "disconnected"


class FailedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run failed. `detail` is the English sentence of the error and `command` what helps; each may be empty."""

    kind: FailureKind
    detail: str = ""
    command: str = ""


class MissingSourceError(UsageError):
    """A task that works on a song, without the song."""


def failure_of(error: BaseException) -> FailedRun:
    """The failure that an error of a run stands for."""
    detail = str(error)
    match error:
        case MissingWeightsError():
            return FailedRun(kind=FailureKind.WEIGHTS, detail=detail, command=error.command)
        case MissingSourceError():
            # The translated sentence says all of it.
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
    # What it says is for those who know the code: it is in the terminal, with its traceback.
    return FailedRun(kind=FailureKind.UNEXPECTED)


def _ran_out(error: BaseException) -> bool:
    from acestep.devices.out_of_memory import ran_out

    return ran_out(error)
