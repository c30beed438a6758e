"""A step of a language model against one of `transformers.generate` with a static cache, over the same weights; on the
CPU.

Both draw from all likely tokens. Ours computes the logits of the codes only, because nothing else may be written. All
songs of a batch have the same prompt, as those of a request.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from acestep.checkpoints.catalog import lm_checkpoint
from acestep.checkpoints.lm import LanguageModel, build_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.lm.tokenizer import COMPACT
from tests.grammars import Counted, job_of

CODES = 10
PROMPT_TOKENS = 40
UNGUIDED_TOKENS = 20
ROUNDS = 2


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def model(request: Any) -> LanguageModel:
    """The published 0.6B model's shape, with weights of its own for every layer.

    Those of `build_lm` are the same few pages of memory at many addresses, which stay in the processor's cache.
    """
    made = build_lm("dummy", lm_checkpoint("0.6B").id, dtype=request.param)
    body = made.module.model
    for part in body.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(weight.clone(), requires_grad=False))
    made.module.lm_head.weight = body.embed_tokens.weight
    return made


class Ticks(StoppingCriteria):  # type: ignore[misc]  # transformers' classes are Any to mypy
    """Never stops; notes the time of every token."""

    def __init__(self, timer: Any) -> None:
        self._timer = timer
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        self.times.append(self._timer())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def _library(model: LanguageModel, jobs: list[Job], ticks: Ticks, *, draws: bool) -> Tensor:
    """The tokens [jobs, codes] of the library for jobs of one length, guided by its own means."""
    prompts = torch.tensor([job.prompt for job in jobs])
    unguided = torch.tensor([job.unguided for job in jobs])
    guidance = {"guidance_scale": 2.0, "negative_prompt_ids": unguided} if jobs[0].guided else {}
    written: Tensor = model.module.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        min_new_tokens=jobs[0].max_tokens,
        max_new_tokens=jobs[0].max_tokens,
        do_sample=draws,
        cache_implementation="static",
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([ticks]),
        **guidance,
    )
    return written[:, prompts.shape[1] :]


def _jobs(grammar: Counted, songs: int, *, guided: bool, codes: int) -> list[Job]:
    unguided = range(7, 7 + UNGUIDED_TOKENS) if guided else ()
    prompt = range(11, 11 + PROMPT_TOKENS)
    return [job_of(grammar, prompt, unguided, seed=song, max_tokens=codes) for song in range(songs)]


def _a_step(times: Sequence[float]) -> float:
    """The median step, without reading the prompts and the first step, in which memory is taken."""
    return median(after - before for before, after in pairwise(times[1:]))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("songs", [1, 8])
@torch.no_grad()
def test_a_step_against_the_library_s(benchmark: Any, model: LanguageModel, songs: int, guided: bool) -> None:
    backend, timer = PtBackend(model, CpuDevice(model.dtype)), benchmark._timer
    if model.dtype is torch.float32:
        everything = Counted(3, range(model.vocabulary), greedy=True)
        likeliest = _jobs(everything, songs, guided=guided, codes=3)
        assert backend.write(likeliest, lambda *_: None) == [
            tuple(row) for row in _library(model, likeliest, Ticks(timer), draws=False).tolist()
        ]
    jobs = _jobs(Counted(CODES, COMPACT.codes), songs, guided=guided, codes=CODES)
    ours, theirs = list[float](), list[float]()

    def turn() -> None:
        times = list[float]()
        backend.write(jobs, lambda *_: times.append(timer()))
        ours.append(_a_step(times))
        ticks = Ticks(timer)
        _library(model, jobs, ticks, draws=True)
        theirs.append(_a_step(ticks.times))

    benchmark.pedantic(turn, rounds=ROUNDS)
    dtype = str(model.dtype).removeprefix("torch.")
    what = f"a step of 0.6B in {dtype}, {songs} song{'s' * (songs > 1)}{', guided' * guided}"
    benchmark.extra_info.update(
        what=what, ours_seconds=min(ours), theirs_seconds=min(theirs), ratio=min(theirs) / min(ours)
    )
    print(f"\n{what}: {min(ours):.4f} s against {min(theirs):.4f} s")  # noqa: T201
    assert min(theirs) / min(ours) >= (2 if guided else 1)
