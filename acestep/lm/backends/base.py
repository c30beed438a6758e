"""What every library that runs a language model has to offer."""

from collections.abc import Callable, Sequence
from typing import Protocol

from acestep.lm.job import Job

StepsWritten = Callable[[int, int], None]
"""Called with (steps done, most steps there can be) while sequences are written."""


class LmBackend(Protocol):
    """Writes the sequences of jobs, all of them at once: how many fit is decided by who asks.

    Raises `torch.OutOfMemoryError` when they do not fit; nothing is kept then.
    """

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """The tokens written for each job, the last one that its grammar asks for included.

        A sequence ends when its grammar says so or at `max_tokens`.
        """
        ...

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Bytes of keys and values for these jobs at their longest."""
        ...

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """What takes most memory in writing these jobs, without a token of it: for probes.

        The prompts are read, then two steps are taken at the far end of a full cache.
        """
        ...

    def close(self) -> None:
        """Give back everything that is on the device; the backend is of no use afterwards."""
        ...
