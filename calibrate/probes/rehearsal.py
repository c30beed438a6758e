"""The peak memory of a language model in a few steps: a backend that wraps the real one in probes."""

from collections.abc import Sequence

import msgspec

from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.job import Job
from acestep.lm.prompts import LONGEST_UNGUIDED_TOKENS
from acestep.thinking import LONGEST_PROMPT_TOKENS
from acestep.units import ceil_div


class Rehearsal:
    """Rehearses the jobs with the longest possible prompts, and invents the tokens.

    With `whole` it also writes them for real, for a certificate on a card.
    """

    def __init__(self, backend: LmBackend, *, whole: bool = False) -> None:
        self._backend = backend
        self._whole = whole

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """Return tokens that the jobs' grammars allow; no model chose them."""
        longest = [stretched(job) for job in jobs]
        if self._whole:
            return self._backend.write(longest, written)
        self._backend.rehearse(longest)
        return all_first_allowed(jobs)

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        return self._backend.cache_bytes([stretched(job) for job in jobs])

    def rehearse(self, jobs: Sequence[Job]) -> None:
        self._backend.rehearse([stretched(job) for job in jobs])

    def close(self) -> None:
        self._backend.close()


def stretched(job: Job) -> Job:
    """Return the job with the longest prompt instead of its own."""
    return msgspec.structs.replace(
        job,
        prompt=_as_long_as(job.prompt, LONGEST_PROMPT_TOKENS),
        unguided=_as_long_as(job.unguided, LONGEST_UNGUIDED_TOKENS),
    )


def first_allowed(job: Job) -> tuple[int, ...]:
    """Return tokens that a job's grammar allows: always the first allowed one."""
    grammar, state, tokens = job.grammar, job.grammar.start, []
    while not grammar.done(state):
        tokens.append(grammar.allowed(state).spans[0].start)
        state = grammar.after(state, tokens[-1])
    return tuple(tokens)


def all_first_allowed(jobs: Sequence[Job]) -> list[tuple[int, ...]]:
    """Return the first allowed tokens of each job; the songs of a request share a grammar, which is followed once."""
    by_grammar = {id(job.grammar): job for job in jobs}
    tokens = {grammar: first_allowed(job) for grammar, job in by_grammar.items()}
    return [tokens[id(job.grammar)] for job in jobs]


def _as_long_as(prompt: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    repeats = ceil_div(tokens, len(prompt)) if prompt else 0
    return (prompt * repeats)[:tokens]
