"""The ways in which a command can end: the exit codes, and one error class for each way to fail.

An error's text is for a musician: it says what was got, what was expected and what to do next.
"""

from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """Exit codes of every command; scripts and CI rely on them."""

    OK = 0
    REGRESSED = 1
    USAGE = 2
    INVALID = 3
    NOT_MEASURED = 4
    RUN_FAILED = 5
    TIMEOUT = 124
    INTERRUPTED = 130


class AceStepError(Exception):
    """Base of every error that ends a command with a sentence instead of a traceback."""

    exit = Exit.RUN_FAILED


class UsageError(AceStepError):
    """An option, argument or environment variable with an invalid value."""

    exit = Exit.USAGE


class InvalidInputError(AceStepError):
    """A file that was read but cannot be used: missing, truncated, of the wrong shape or too new."""

    exit = Exit.INVALID

    def __init__(self, source: Path | str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


class MissingWeightsError(InvalidInputError):
    """Weights that are not on this machine; `command` downloads them, None if no command can."""

    def __init__(self, source: Path | str, problem: str, *, command: str | None = None) -> None:
        super().__init__(source, f"{problem}; get it with: {command}" if command else problem)
        self.command = command


class NotMeasuredError(AceStepError):
    """A measurement that could not be made; it says nothing about whether the thing measured fits."""

    exit = Exit.NOT_MEASURED


class RunFailedError(AceStepError):
    """A run that started but could not finish: memory, disk or network."""

    exit = Exit.RUN_FAILED


class CardFaultError(RunFailedError):
    """A card or driver that failed in the middle of a run; the process cannot use the card any more."""


class HostMemoryError(RunFailedError):
    """Weights that do not fit into main memory; nothing was loaded."""


class NotEnoughMemoryError(RunFailedError):
    """A run for which neither the card nor the computer had enough memory."""


class NotANumberError(RunFailedError):
    """A song whose latents are infinite or no numbers."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if there is no message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
