"""One sequence for a language model to write, and the rules it is written under."""

from typing import Any, Protocol

import msgspec

from acestep.thinking import Sampling

State = Any
"""Where a grammar is in its text: an immutable value that only the grammar reads."""


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """The token ids that may come next: disjoint ranges in ascending order, none empty.

    `greedy` takes the likeliest of them instead of drawing. A grammar gives the same object for the same set wherever
    it can, so that masks may be kept by identity.
    """

    spans: tuple[range, ...]
    greedy: bool = False

    def __post_init__(self) -> None:
        ends = [edge for span in self.spans for edge in (span.start, span.stop)]
        if not ends or ends != sorted(ends) or any(len(span) == 0 for span in self.spans):
            raise ValueError(f"spans must be non-empty, disjoint and ascending ranges, got {self.spans}")

    @property
    def forced(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.spans) == 1 and len(self.spans[0]) == 1

    def __contains__(self, token: int) -> bool:
        return any(token in span for span in self.spans)


class Grammar(Protocol):
    """Which token may follow which, for one sequence. Pure: a state is never changed, only followed by another."""

    @property
    def start(self) -> State:
        """The state before the first token."""
        ...

    def allowed(self, state: State) -> Allowed:
        """What may come next; not asked once the sequence is `done`."""
        ...

    def after(self, state: State, token: int) -> State:
        """The state after an allowed token; raises `ValueError` for one that is not allowed."""
        ...

    def done(self, state: State) -> bool:
        """Whether the sequence is complete; its last token is part of it."""
        ...


class Job(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One sequence to write: `prompt` is what it follows, and at most `max_tokens` are written.

    `unguided` is the prompt without the wishes, for guidance; () where there is no guidance. `seed` decides the draws:
    the same seed writes the same sequence, alone or beside others. Raises `ValueError` naming the field.
    """

    prompt: tuple[int, ...]
    grammar: Grammar
    sampling: Sampling
    seed: int
    max_tokens: int
    unguided: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt must hold at least one token, got none")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be 0 to {2**64 - 1}, got {self.seed}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if self.guided != bool(self.unguided):
            raise ValueError(
                f"guidance {self.sampling.guidance:g} needs an unguided prompt exactly where it is above 1,"
                f" got {len(self.unguided)} tokens of it"
            )

    @property
    def guided(self) -> bool:
        """Whether two passes a step, with the wishes and without, are blended."""
        return self.sampling.guidance > 1

    @property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """What each of its sequences follows: the one with the wishes, then the one without where it is guided."""
        return (self.prompt, self.unguided) if self.guided else (self.prompt,)

    @property
    def longest(self) -> int:
        """Tokens of the longest of its sequences when all is written."""
        return max(map(len, self.prompts)) + self.max_tokens
