"""The work of a language model that writes a song's plan and codes: a few steps are traced, the others lie between."""

from collections.abc import Sequence
from typing import Final

import msgspec

from acestep.lm.backends.base import StepsWritten
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from calibrate.probes.rehearsal import all_first_allowed
from calibrate.probes.simulated.work_counter import WorkCounter, work_between
from calibrate.probes.work import Work

PLAN_TOKENS: Final = 200
"""Tokens of a plan as people get it, of at most 580: a caption of about a hundred words, and six short lines."""


class Counted:
    """What a `CountedWriting` has counted: the work, and the steps, each of which writes a token of every song."""

    def __init__(self) -> None:
        self.work = Work()
        self.steps = 0


class CountedWriting:
    """A backend that counts the work of writing all tokens of its jobs, and makes up the tokens.

    A step reads the keys of all tokens before it, so the work of a step grows evenly from the first to the last one.
    """

    def __init__(self, backend: PtBackend, counter: WorkCounter, counted: Counted) -> None:
        self._backend = backend
        self._counter = counter
        self._counted = counted

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """Return tokens that the jobs' grammars allow, after counting the work of all of them."""
        answers = all_first_allowed(jobs)
        steps = max(map(len, answers))
        if jobs[0].max_tokens > steps:
            # A plan ends before its grammar must; codes have a fixed number.
            steps = PLAN_TOKENS
        one, two, last_two = (self._rehearsed(jobs, tokens) for tokens in (1, 2, steps))
        first = two.plus(one, -1)
        # `one` has the prompts and the first step; `last_two` has the prompts and twice the last step.
        twice_last = last_two.plus(one, -1).plus(first)
        self._counted.work = self._counted.work.plus(one).plus(first.plus(first).plus(twice_last), steps - 2, of=4)
        self._counted.steps += steps
        written(1, 1)
        return answers

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Return the bytes of keys and values for these jobs."""
        return self._backend.cache_bytes(jobs)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Do nothing: the work is counted where tokens are written."""

    def close(self) -> None:
        """Do nothing: no memory is kept."""

    def _rehearsed(self, jobs: Sequence[Job], tokens: int) -> Work:
        before = self._counter.counts
        self._backend.rehearse([msgspec.structs.replace(job, max_tokens=tokens) for job in jobs])
        return work_between(before, self._counter.counts)
