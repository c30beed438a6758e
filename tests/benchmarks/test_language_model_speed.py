"""A step of a language model against one of `transformers.generate` with a static cache, over the same weights; on the
CPU.

Both draw from all likely tokens. Ours computes the logits of the codes only, because nothing else may be written.
"""

import copy
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from acestep.checkpoints.lm import LanguageModel
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from tests.benchmarks.language_model import (
    CASES,
    a_step,
    likeliest,
    our_backend,
    our_step,
    record,
    songs_of_codes,
    what,
    with_own_weights,
)

ROUNDS = 2


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def sides(request: Any) -> tuple[PtBackend, LanguageModel]:
    """Our backend, and the model with the same weights for the library."""
    model = with_own_weights(request.param)
    return our_backend(msgspec.structs.replace(model, module=copy.deepcopy(model.module))), model


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


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("songs", "guided"), CASES)
@torch.no_grad()
def test_a_step_against_the_library_s(
    benchmark: Any, sides: tuple[PtBackend, LanguageModel], songs: int, guided: bool
) -> None:
    (backend, model), timer = sides, benchmark._timer
    if model.dtype is torch.float32:
        greedy = likeliest(model, songs, guided=guided)
        assert backend.write(greedy, lambda *_: None) == [
            tuple(row) for row in _library(model, greedy, Ticks(timer), draws=False).tolist()
        ]
    jobs = songs_of_codes(songs, guided=guided)
    ours, theirs = list[float](), list[float]()

    def turn() -> None:
        ours.append(our_step(backend, jobs, timer))
        ticks = Ticks(timer)
        _library(model, jobs, ticks, draws=True)
        theirs.append(a_step(ticks.times))

    benchmark.pedantic(turn, rounds=ROUNDS)
    ratio = record(benchmark, what(model.dtype, songs, guided=guided), ours, theirs)
    assert ratio >= (2 if guided else 1)
