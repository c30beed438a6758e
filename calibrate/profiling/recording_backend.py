"""A backend that records the prompts and texts of a language model and passes the calls on."""

import time
from collections.abc import Sequence

import msgspec

from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.job import Job


class Pass(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One call of a backend: the `jobs` of one batch, and the tokens of each."""

    jobs: tuple[Job, ...]
    tokens: tuple[tuple[int, ...], ...]
    seconds: float


class RecordingBackend:
    """A backend that passes calls to another one and appends every completed pass to `passes`."""

    def __init__(self, backend: LmBackend, passes: list[Pass]) -> None:
        self._backend = backend
        self._passes = passes

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """Return the tokens written for each job; they are on the host, so the clock needs no synchronisation."""
        started = time.perf_counter()
        tokens = self._backend.write(jobs, written)
        self._passes.append(Pass(jobs=tuple(jobs), tokens=tuple(tokens), seconds=time.perf_counter() - started))
        return tokens

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        return self._backend.cache_bytes(jobs)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        self._backend.rehearse(jobs)

    def close(self) -> None:
        self._backend.close()
