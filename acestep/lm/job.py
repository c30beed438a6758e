"""One sequence for a language model to write, and the grammar that it must follow."""

from typing import Any, Protocol

import msgspec

from acestep.thinking import Sampling

State = Any
"""The position of a grammar in its text: an immutable value that only the grammar interprets."""


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """The token ids that may come next: disjoint, non-empty ranges in ascending order.

    With `greedy` the most likely of them is taken instead of a random draw. A grammar returns the same object for the
    same set where it can, so that masks can be cached by identity.
    """

    spans: tuple[range, ...]
    greedy: bool = False

    def __post_init__(self) -> None:
        ends = [edge for span in self.spans for edge in (span.start, span.stop)]
        if not ends or ends != sorted(ends) or any(len(span) == 0 for span in self.spans):
            raise ValueError(f"spans must be non-empty, disjoint and ascending ranges, got {self.spans}")

    @property
    def forced(self) -> bool:
        """Whether only one token is allowed."""
        return len(self.spans) == 1 and len(self.spans[0]) == 1

    def __contains__(self, token: int) -> bool:
        return any(token in span for span in self.spans)


class Grammar(Protocol):
    """The allowed next tokens of one sequence. Pure: a state is never changed; `after` returns a new one."""

    @property
    def start(self) -> State:
        """The state before the first token."""
        ...

    def allowed(self, state: State) -> Allowed:
        """Return the tokens that may come next. It is never called for a `done` sequence."""
        ...

    def after(self, state: State, token: int) -> State:
        """Return the state after an allowed token; raise `ValueError` for a token that is not allowed."""
        ...

    def done(self, state: State) -> bool:
        """Return whether the sequence is complete; its last token is part of it."""
        ...


class Job(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One sequence to write: at most `max_tokens` tokens after `prompt`.

    `unguided` is the prompt without the user's wishes (unconditional), for guidance; () without guidance. `seed`
    decides the random draws: the same seed writes the same sequence, alone or in a batch. Raises `ValueError` naming
    the field.
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
        """Whether each step blends the logits of two passes: the conditional and the unconditional one."""
        return self.sampling.guidance > 1

    @property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """The prompts of its sequences: the conditional one, then the unconditional one if the job is guided."""
        return (self.prompt, self.unguided) if self.guided else (self.prompt,)

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence at full length, prompt included."""
        return max(map(len, self.prompts)) + self.max_tokens
