"""The workload of a probe."""

import msgspec
from msgspec import UNSET, UnsetType

from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Task

PROBE_STEPS = 2
"""Denoising steps of a probe. Two show the peak of any number of steps within 0.1 %, one does not."""


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`batch` songs of `duration_s` seconds, by default with the longest prompt (lengths in tokens).

    A `task` that works on a song gets one of the same length; `reference_seconds` are of timbre reference, and a cover
    may have another strength than 1. Without them a record leaves them out: text2music, and no reference.
    """

    batch: int
    duration_s: float
    with_lm: bool = False
    lyric_tokens: int = MAX_LYRIC_TOKENS
    text_tokens: int = MAX_TEXT_TOKENS
    steps: int = PROBE_STEPS
    task: Task | UnsetType = UNSET
    reference_seconds: float | UnsetType = UNSET
    cover_strength: float | UnsetType = UNSET

    def __post_init__(self) -> None:
        for name in ("batch", "duration_s", "lyric_tokens", "text_tokens", "steps", "reference_seconds"):
            value = getattr(self, name)
            if value is not UNSET and value <= 0:
                raise ValueError(f"workload {name} must be positive, got {value}")
        if self.cover_strength is not UNSET and self.task is not Task.COVER:
            raise ValueError(f"workload cover_strength is for the task cover, got the task {self.task or 'none'}")
