"""What a probe asks the pipeline for."""

import msgspec

from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS

PROBE_STEPS = 2
"""Denoising steps of a probe. Two show the peak of any number of steps within 0.1 %, one does not."""


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`batch` songs of `duration_s` seconds with the longest prompt unless told otherwise (lengths in tokens)."""

    batch: int
    duration_s: float
    with_lm: bool = False
    lyric_tokens: int = MAX_LYRIC_TOKENS
    text_tokens: int = MAX_TEXT_TOKENS
    steps: int = PROBE_STEPS

    def __post_init__(self) -> None:
        for name in ("batch", "duration_s", "lyric_tokens", "text_tokens", "steps"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"workload {name} must be positive, got {value}")
