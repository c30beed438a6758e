"""Songs planned together against one at a time, and what drawing a token costs; on the CPU."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from acestep.checkpoints.architecture import QwenArchitecture, arguments
from acestep.checkpoints.libraries import Qwen3Config, Qwen3ForCausalLM
from acestep.checkpoints.lm import LanguageModel
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.lm.products import Products
from acestep.lm.sampling import Draft, next_token
from acestep.lm.tokenizer import COMPACT
from tests.benchmarks.versus import versus
from tests.grammars import Counted, job_of

SONGS = 8
CODES = 40
"""Eight seconds of music."""

VOCABULARY = range(100, 8_000)
"""So many that the head's share of the work is about that of 0.6B."""

CPU_SIZED = QwenArchitecture(
    vocab_size=VOCABULARY.stop,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
)


def _model() -> LanguageModel:
    torch.manual_seed(0)
    module = Qwen3ForCausalLM(Qwen3Config(**arguments(CPU_SIZED), tie_word_embeddings=True))
    return LanguageModel(id="cpu-sized", module=module.eval().requires_grad_(False), is_noise="tiny")


def _jobs() -> list[Job]:
    return [job_of(Counted(CODES, VOCABULARY), range(60), range(40), seed=seed) for seed in range(SONGS)]


def _library_form(self: Products, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.linear(rows, weight)


def test_eight_guided_songs_together_and_one_at_a_time(benchmark: Any, monkeypatch: Any) -> None:
    """One at a time in the library's form of products, which is what a batch was made to be faster than."""
    backend, jobs, fastest = PtBackend(_model(), CpuDevice()), _jobs(), Products._in_fastest_form

    def together() -> list[tuple[int, ...]]:
        monkeypatch.setattr(Products, "_in_fastest_form", fastest)
        return backend.write(jobs, lambda step, most: None)

    def apart() -> list[tuple[int, ...]]:
        monkeypatch.setattr(Products, "_in_fastest_form", _library_form)
        return [backend.write([job], lambda step, most: None)[0] for job in jobs]

    assert together() == apart()
    what = f"{SONGS} guided songs of {CODES} codes, {SONGS} in a batch against 1 in the library's form"
    assert versus(benchmark, what, together, apart, rounds=2) >= 4


def test_the_form_of_products_that_was_chosen_and_the_library_s(benchmark: Any, monkeypatch: Any) -> None:
    backend, jobs, fastest = PtBackend(_model(), CpuDevice()), _jobs(), Products._in_fastest_form

    def chosen() -> list[tuple[int, ...]]:
        monkeypatch.setattr(Products, "_in_fastest_form", fastest)
        return backend.write(jobs, lambda step, most: None)

    def usual() -> list[tuple[int, ...]]:
        monkeypatch.setattr(Products, "_in_fastest_form", _library_form)
        return backend.write(jobs, lambda step, most: None)

    assert chosen() == usual()
    what = f"{SONGS} guided songs of {CODES} codes, products in the chosen form against the library's"
    assert versus(benchmark, what, chosen, usual, rounds=3) >= 0.95


def test_drawing_a_code_is_quick(benchmark: Any) -> None:
    row = np.random.default_rng(0).normal(0, 3, len(COMPACT.codes)).astype(np.float32)
    draft = Draft(job_of(Counted(1, COMPACT.codes)))
    benchmark(next_token, row, (COMPACT.codes,), draft)
    benchmark.extra_info.update(what="drawing one of 64,000 codes", ours_seconds=benchmark.stats.stats.median)
    assert benchmark.stats.stats.median < 10e-3
