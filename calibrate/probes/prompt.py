"""Prompts and audio of an exact length, so that a probe does not depend on any particular wording."""

import msgspec
from msgspec import UNSET

from acestep.checkpoints.tokenizer import Tokenizer
from acestep.clip import SAMPLE_RATE, Clip
from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.fields import TRACKS
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request, Task
from acestep.task import OF_ONE_TRACK, WINDOWED
from calibrate.workload import Workload


def probe_request(workload: Workload, tokenizer: Tokenizer) -> Request:
    """Return the request for `workload`; at the trained maximum the pipeline itself cuts to it, with any tokenizer.

    Raises `ValueError` for lengths below the maximum that the byte tokenizer cannot give exactly.
    """
    task = workload.task or Task.TEXT2MUSIC
    blank = Request(
        caption="",
        # Not empty, because a song without lyrics is given some.
        lyrics="x",
        duration_s=workload.duration_s,
        batch=workload.batch,
        steps=workload.steps,
        task=task,
        source_audio=None if task is Task.TEXT2MUSIC else _silence(workload.duration_s),
        reference_audio=_silence(workload.reference_seconds) if workload.reference_seconds else None,
        # A window in the middle: on both sides of it the source is kept.
        repaint_start_s=workload.duration_s / 4 if task in WINDOWED else 0.0,
        repaint_end_s=workload.duration_s * 3 / 4 if task in WINDOWED else 0.0,
        # Which track is named changes a few tokens of the prompt, which has its own length.
        track=TRACKS[0] if task in OF_ONE_TRACK else "",
        tracks=TRACKS[:1] if task is Task.COMPLETE else (),
        cover_strength=1.0 if workload.cover_strength is UNSET else workload.cover_strength,
    )
    empty_text = tokenizer.encode(text_prompt(blank), MAX_TEXT_TOKENS)
    least_lyrics = tokenizer.encode(lyric_prompt(blank), MAX_LYRIC_TOKENS)
    request = msgspec.structs.replace(
        blank,
        caption=_filler(workload.text_tokens, len(empty_text), MAX_TEXT_TOKENS),
        lyrics=_filler(workload.lyric_tokens, len(least_lyrics) - 1, MAX_LYRIC_TOKENS),
    )
    lengths = (
        len(tokenizer.encode(text_prompt(request), MAX_TEXT_TOKENS)),
        len(tokenizer.encode(lyric_prompt(request), MAX_LYRIC_TOKENS)),
    )
    if lengths != (workload.text_tokens, workload.lyric_tokens):
        raise ValueError(
            f"a prompt of {workload.text_tokens} and lyrics of {workload.lyric_tokens} tokens cannot be made with this"
            f" tokenizer, which gives {lengths[0]} and {lengths[1]}; ask for the longest"
        )
    return request


def _filler(tokens: int, template: int, longest: int) -> str:
    """Words that certainly reach the maximum, or the exact number of missing letters."""
    return "la " * longest if tokens == longest else "x" * (tokens - template)


def _silence(seconds: float) -> Clip:
    import numpy as np

    return Clip(audio=np.zeros((2, round(seconds * SAMPLE_RATE)), dtype=np.float32))
