"""The speed and the texts of a language model, computed from its recorded passes."""

import re
from collections.abc import Sequence

import msgspec

from acestep.lm.jobs import Planner
from calibrate.profiling.recording_backend import Pass

CODE_TEXT = re.compile(r"(?:<\|audio_code_[0-9]+\|>)+")
"""A sequence of audio codes in text."""


class WritingPass(msgspec.Struct, frozen=True, kw_only=True):
    """One pass: `what` is `words` or `codes`; tokens are of all songs together, forced ones included."""

    what: str
    songs: int
    prompt_tokens: int
    tokens: int
    seconds: float
    tokens_per_second: float


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt of a language model, without the unconditional one, and the text it wrote."""

    prompt: str
    written: str


def writing_passes(passes: Sequence[Pass], planner: Planner) -> tuple[WritingPass, ...]:
    """The numbers of each pass."""
    return tuple(_written(one, planner) for one in passes)


def exchanges(passes: Sequence[Pass], planner: Planner) -> tuple[Exchange, ...]:
    """The texts of each sequence of each pass."""
    return tuple(
        Exchange(prompt=planner.spelled(job.prompt), written=planner.spelled(tokens))
        for one in passes
        for job, tokens in zip(one.jobs, one.tokens, strict=True)
    )


def _written(one: Pass, planner: Planner) -> WritingPass:
    tokens = sum(map(len, one.tokens))
    # The last token ends the turn. Words that were written without rules may begin with a code and continue with text.
    codes = any(CODE_TEXT.fullmatch(planner.spelled(song[:-1])) for song in one.tokens)
    return WritingPass(
        what="codes" if codes else "words",
        songs=len(one.jobs),
        prompt_tokens=sum(len(job.prompt) for job in one.jobs),
        tokens=tokens,
        seconds=one.seconds,
        tokens_per_second=tokens / one.seconds if one.seconds else 0.0,
    )
