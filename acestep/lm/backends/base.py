"""The protocol that every library that runs a language model implements."""

from collections.abc import Callable, Sequence
from typing import Protocol

from acestep.lm.job import Job

StepsWritten = Callable[[int, int], None]
"""Called after each step with (steps done, largest possible number of steps)."""


class LmBackend(Protocol):
    """Writes the token sequences of jobs, all in one batch; the caller decides how many fit.

    Raises `torch.OutOfMemoryError` when they do not fit. Nothing is kept in that case.
    """

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """Return the tokens written for each job, including the final token that its grammar requires.

        A sequence ends when its grammar says so, or after `max_tokens` tokens.
        """
        ...

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Return the bytes of keys and values that these jobs need at their full length."""
        ...

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Run the steps that need the most memory for these jobs, without writing tokens: used by probes.

        Reads the prompts, then takes two steps at the end of a full cache.
        """
        ...

    def close(self) -> None:
        """Free everything on the device. The backend cannot be used afterwards."""
        ...
