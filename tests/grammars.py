"""Grammars for tests of what writes under them, small enough to see through."""

from collections.abc import Sequence

from acestep.lm.job import Allowed, Job
from acestep.thinking import Sampling


class Counted:
    """Any tokens of `spans`, `length` of them; the state is how many there are."""

    start = 0

    def __init__(self, length: int, *spans: range, greedy: bool = False) -> None:
        self.length = length
        self._allowed = Allowed(spans=spans, greedy=greedy)

    def allowed(self, state: int) -> Allowed:
        return self._allowed

    def after(self, state: int, token: int) -> int:
        if token not in self._allowed:
            raise ValueError(f"{token} is not allowed")
        return state + 1

    def done(self, state: int) -> bool:
        return state >= self.length


class Alternating(Counted):
    """Every other token is forced to be `between`, and the last one is."""

    def __init__(self, length: int, between: int, *spans: range) -> None:
        super().__init__(2 * length, *spans)
        self._between = Allowed(spans=(range(between, between + 1),))

    def allowed(self, state: int) -> Allowed:
        return self._between if state % 2 else self._allowed

    def after(self, state: int, token: int) -> int:
        if token not in self.allowed(state):
            raise ValueError(f"{token} is not allowed")
        return state + 1


def job_of(
    grammar: Counted,
    prompt: Sequence[int] = (1, 2, 3),
    unguided: Sequence[int] = (),
    *,
    seed: int = 0,
    max_tokens: int = 64,
    sampling: Sampling | None = None,
) -> Job:
    """A job, guided where it has something to be guided away from."""
    return Job(
        prompt=tuple(prompt),
        unguided=tuple(unguided),
        grammar=grammar,
        sampling=sampling or Sampling(guidance=2.0 if unguided else 1.0),
        seed=seed,
        max_tokens=max_tokens,
    )
