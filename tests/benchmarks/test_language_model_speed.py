"""The codes of a language model against `transformers.generate` with a static cache, over the same weights; on the CPU.

Both draw from all likely tokens. Ours computes the logits of the codes only, because nothing else may be written.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.catalog import lm_checkpoint
from acestep.checkpoints.lm import LanguageModel, build_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.lm.tokenizer import COMPACT
from tests.benchmarks.versus import versus
from tests.grammars import Counted, job_of

CODES = 10
PROMPT_TOKENS = 100
UNGUIDED_TOKENS = 60


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """The published 0.6B model's shape in float32, 2.7 GB of random weights."""
    return build_lm("dummy", lm_checkpoint("0.6B").id, dtype=torch.float32)


def _library(model: LanguageModel, jobs: list[Job], *, draws: bool) -> Tensor:
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
        **guidance,
    )
    return written[:, prompts.shape[1] :]


def _jobs(grammar: Counted, songs: int, *, guided: bool, codes: int) -> list[Job]:
    unguided = range(7, 7 + UNGUIDED_TOKENS) if guided else ()
    prompts = (range(11 + song, 11 + song + PROMPT_TOKENS) for song in range(songs))
    return [job_of(grammar, prompt, unguided, seed=song, max_tokens=codes) for song, prompt in enumerate(prompts)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("songs", [1, 8])
@torch.no_grad()
def test_codes_against_the_library(benchmark: Any, model: LanguageModel, songs: int, guided: bool) -> None:
    backend = PtBackend(model, CpuDevice())
    everything = Counted(3, range(model.vocabulary), greedy=True)
    likeliest = _jobs(everything, songs, guided=guided, codes=3)
    assert backend.write(likeliest, lambda *_: None) == [
        tuple(row) for row in _library(model, likeliest, draws=False).tolist()
    ]
    jobs = _jobs(Counted(CODES, COMPACT.codes), songs, guided=guided, codes=CODES)
    what = f"{CODES} codes of 0.6B in float32, {songs} song{'s' * (songs > 1)}{', guided' * guided}"
    ratio = versus(
        benchmark,
        what,
        lambda: backend.write(jobs, lambda *_: None),
        lambda: _library(model, jobs, draws=True),
        rounds=2,
    )
    assert ratio >= 0.95
