"""The ids of a language model's tokens: plain text, special tokens, and audio codes."""

from collections.abc import Callable

import msgspec

from acestep.request import MAX_AUDIO_CODE

CODES = MAX_AUDIO_CODE + 1
CODE_TOKENS = 65_535
"""The number of audio codes, and of tokens that the checkpoints have for them; the last 1,535 tokens have no meaning.
"""

CODES_PER_SECOND = 5
"""Audio codes for one second of music."""

PAD, IM_START, IM_END, THINK, THOUGHT = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The meaning of each id. Ids below `plain` are only text; ids from `size` on are only padding.

    `eos` ends a turn, `think` and `thought` open and close the thinking, `first_code` is audio code 0. Raises
    `ValueError` if two kinds of token share ids.
    """

    plain: int
    pad: int
    im_start: int
    eos: int
    think: int
    thought: int
    newline: int
    first_code: int
    size: int

    def __post_init__(self) -> None:
        marks = (self.pad, self.im_start, self.eos, self.think, self.thought)
        apart = len(set(marks)) == len(marks) and all(self.plain <= mark < self.first_code for mark in marks)
        if not apart or not 0 <= self.newline < self.plain or self.size < self.first_code + CODES:
            raise ValueError(f"text, marks and the {CODES:,} audio codes must follow each other, got {self}")

    @property
    def marks(self) -> dict[int, str]:
        """Return the name of each special token, by id."""
        return {self.pad: PAD, self.im_start: IM_START, self.eos: IM_END, self.think: THINK, self.thought: THOUGHT}

    @property
    def codes(self) -> range:
        """The ids of the legal audio codes."""
        return range(self.first_code, self.first_code + CODES)

    def code(self, token: int) -> int:
        """Return the audio code that a token stands for; raise `ValueError` for any other token."""
        if token not in self.codes:
            raise ValueError(f"token {token} is no audio code: those are {self.codes.start} to {self.codes.stop - 1}")
        return token - self.first_code

    def id(self, code: int) -> int:
        """Return the token of an audio code; raise `ValueError` for a number that is not a code."""
        if not 0 <= code <= MAX_AUDIO_CODE:
            raise ValueError(f"audio codes are 0 to {MAX_AUDIO_CODE}, got {code}")
        return self.first_code + code


def code_name(code: int) -> str:
    """Return an audio code as it is written in text."""
    return f"<|audio_code_{code}|>"


def read_vocabulary(lookup: Callable[[str], int | None], plain: int, newline: int, size: int) -> Vocabulary:
    """Build the vocabulary with `lookup`, which returns the id of a token's name.

    Raises `ValueError` naming what is missing. Only the first and the last code are looked up, and some in between:
    their ids are consecutive.
    """

    def found(name: str) -> int:
        token = lookup(name)
        if token is None:
            raise ValueError(f"it has no token {name}")
        return token

    first = found(code_name(0))
    for code in (1, CODES // 2, MAX_AUDIO_CODE):
        if found(code_name(code)) != first + code:
            raise ValueError(f"its audio codes do not follow each other: {code_name(code)} is not id {first + code}")
    return Vocabulary(
        plain=plain,
        pad=found(PAD),
        im_start=found(IM_START),
        eos=found(IM_END),
        think=found(THINK),
        thought=found(THOUGHT),
        newline=newline,
        first_code=first,
        size=size,
    )
