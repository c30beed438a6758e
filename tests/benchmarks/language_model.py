"""A language model of full size, and what it is asked to write, for comparisons of a step with other libraries."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import nn

from acestep.checkpoints.catalog import lm_checkpoint
from acestep.checkpoints.lm import LanguageModel, build_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.lm.packed import OFTEN, pack_layers
from acestep.lm.tokenizer import COMPACT
from tests.grammars import Counted, job_of

CODES = 2 * OFTEN + 8
"""Eight seconds of music. After the first `OFTEN` steps the codes' part of the head is packed, as in every song."""

PROMPT_TOKENS = 40
UNGUIDED_TOKENS = 20
GREEDY_TOKENS = 5
CASES = [(1, False), (1, True), (8, False), (8, True)]
"""Songs, and whether they are guided."""


def with_own_weights(dtype: torch.dtype) -> LanguageModel:
    """The published 0.6B model's shape, with weights of its own for every layer.

    Those of `build_lm` are the same few pages of memory at many addresses, which stay in the processor's cache.
    """
    made = build_lm("dummy", lm_checkpoint("0.6B").id, dtype=dtype)
    body = made.module.model
    for part in body.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(weight.clone(), requires_grad=False))
    made.module.lm_head.weight = body.embed_tokens.weight
    return made


def our_backend(model: LanguageModel) -> PtBackend:
    """Our backend as it runs on a CPU: the model's weights are packed, so that no other library can use them."""
    pack_layers(model.module.model)
    return PtBackend(model, CpuDevice(model.dtype))


def songs_of_codes(songs: int, *, guided: bool) -> list[Job]:
    """Songs of `CODES` drawn codes each."""
    return _jobs(Counted(CODES, COMPACT.codes), songs, guided=guided, tokens=CODES)


def likeliest(model: LanguageModel, songs: int, *, guided: bool) -> list[Job]:
    """A few tokens of all that there are, always the most likely one."""
    return _jobs(
        Counted(GREEDY_TOKENS, range(model.vocabulary), greedy=True), songs, guided=guided, tokens=GREEDY_TOKENS
    )


def a_step(times: Sequence[float]) -> float:
    """The median step, without reading the prompts and the first step, in which memory is taken."""
    return median(after - before for before, after in pairwise(times[1:]))


def record(benchmark: Any, what: str, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Record the best step of each side for the page of results; return how many times as fast ours is."""
    ratio = min(theirs) / min(ours)
    benchmark.extra_info.update(what=what, ours_seconds=min(ours), theirs_seconds=min(theirs), ratio=ratio)
    print(f"\n{what}: {min(ours):.4f} s against {min(theirs):.4f} s")  # noqa: T201
    return ratio


def what(dtype: torch.dtype, songs: int, *, guided: bool) -> str:
    """What a row of the page compares."""
    return (
        f"a step of 0.6B in {str(dtype).removeprefix('torch.')}, {songs} song{'s' * (songs > 1)}{', guided' * guided}"
    )


def _jobs(grammar: Counted, songs: int, *, guided: bool, tokens: int) -> list[Job]:
    """All with the same prompt, as those of a request."""
    unguided = range(7, 7 + UNGUIDED_TOKENS) if guided else ()
    prompt = range(11, 11 + PROMPT_TOKENS)
    return [job_of(grammar, prompt, unguided, seed=song, max_tokens=tokens) for song in range(songs)]


def our_step(backend: PtBackend, jobs: Sequence[Job], timer: Callable[[], float]) -> float:
    """Write the jobs and return the median step, by `timer`."""
    times: list[float] = []
    backend.write(jobs, lambda *_: times.append(timer()))
    return a_step(times)
