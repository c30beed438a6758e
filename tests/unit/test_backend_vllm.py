"""How the engine is driven, with a fake in its place; tests/vllm has the real one."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acestep.devices.cpu import CpuDevice
from acestep.lm.backends import vllm
from acestep.lm.backends.vllm import VllmBackend
from acestep.lm.backends.vllm_memory import pool_for, pool_of
from acestep.lm.job import Job
from acestep.lm.sampling import Draft, Sampler, guide
from acestep.lm.thinker import write_in_passes
from acestep.thinking import Sampling
from tests import fake_vllm
from tests.tiny_planner import GREEDY, VOCABULARY, song, unheard, write_planner

KINDS = [GREEDY, Sampling(), Sampling(guidance=1), Sampling(top_k=5, repetition_penalty=1.2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planner(tmp_path_factory.mktemp("planner") / "lm")


class OnCard(CpuDevice):
    """A CPU that says it is a card."""

    torch_device = torch.device("cuda")


def started(monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> fake_vllm.Started:
    fake_vllm.install(monkeypatch)
    made = fake_vllm.Started(Random(seed))  # noqa: S311 an order, no secret
    monkeypatch.setattr(vllm, "start", made.start)
    monkeypatch.setattr(vllm, "stop", made.stop)
    return made


def in_lock_step(job: Job) -> tuple[int, ...]:
    """What a job writes where nothing can come apart."""
    draft, sampler = Draft(job), Sampler(CpuDevice())
    while not draft.done:
        values = fake_vllm.logits_after([*job.prompt, *draft.tokens])[None]
        if job.guided:
            without = fake_vllm.logits_after([*job.unguided, *draft.tokens])[None]
            values = guide(values, without, job.sampling.guidance)
        draft.append(sampler.choose(values, (range(VOCABULARY),), [draft])[0])
    return tuple(draft.tokens)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.integers(0, 2**32), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
def test_songs_are_the_same_whatever_the_order_in_which_rows_are_stepped(
    folder: Path, order: int, kinds: list[Sampling]
) -> None:
    jobs = [
        song(length=5 + i, codes=3 + 2 * i, sampling=kind, seed=i, unguided=4, max_tokens=9)
        for i, kind in enumerate(kinds)
    ]
    with pytest.MonkeyPatch.context() as patched:
        started(patched, order)
        backend = VllmBackend(folder, CpuDevice(), pool_for(jobs))
        assert backend.write(jobs, unheard) == [in_lock_step(job) for job in jobs]


def test_an_engine_is_kept_for_jobs_that_fit_and_started_anew_for_larger_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(monkeypatch)
    backend = VllmBackend(folder, CpuDevice(), pool_of(rows=2, longest=64))
    small, large = song(length=9, codes=2), song(length=99, codes=2)
    backend.write([small, small], unheard)
    assert (len(made.engines), made.stopped) == (1, [])
    backend.write([large], unheard)
    backend.write([small, small], unheard)
    assert made.stopped == made.engines[:1]
    assert len(made.engines) == 2


def test_songs_that_do_not_fit_together_are_written_in_smaller_passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(monkeypatch)
    made.most_rows = 4
    device = CpuDevice()
    backend = VllmBackend(folder, device, pool_of(rows=2, longest=64))
    jobs = [song(length=9, codes=2, seed=i) for i in range(8)]
    tokens, at_once = write_in_passes(jobs, backend, device, unheard)
    assert tokens == [in_lock_step(job) for job in jobs]
    assert (at_once, made.asked) == (4, [2, 8, 4])


def test_one_song_is_written_after_more_did_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(monkeypatch)
    made.most_rows = 4
    backend = VllmBackend(folder, CpuDevice(), pool_of(rows=2, longest=64))
    alone = song(length=9, codes=2)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            backend.write([alone] * 8, unheard)
        assert backend.write([alone], unheard) == [in_lock_step(alone)]
    assert made.asked == [2, 8, 2, 8, 2]


def test_on_cuda_the_engine_sleeps_between_uses_elsewhere_it_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(monkeypatch)
    for device in (OnCard(), CpuDevice()):
        backend = VllmBackend(folder, device, pool_of(rows=2, longest=64))
        for _ in range(2):
            backend.write([song(length=9, codes=2)], unheard)
            backend.rest()
            backend.rest()
        backend.close()
    on_card, *elsewhere = made.engines
    assert on_card.calls == ["sleep 1", "wake up", "sleep 1", "wake up"]
    assert [engine.calls for engine in elsewhere] == [[], []]
    assert made.stopped == made.engines


def test_an_engine_that_cannot_wake_up_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(monkeypatch)
    backend = VllmBackend(folder, OnCard(), pool_of(rows=2, longest=64))
    backend.rest()

    def refuse() -> None:
        raise RuntimeError("CUDA Error: out of memory")

    monkeypatch.setattr(made.engines[0], "wake_up", refuse)
    backend.close()
    assert made.stopped == made.engines


def test_an_engine_without_memory_to_wake_up_raises_and_a_smaller_pass_restarts_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(monkeypatch)
    backend = VllmBackend(folder, OnCard(), pool_of(rows=2, longest=64))
    alone = song(length=9, codes=2)
    backend.write([alone] * 4, unheard)
    backend.rest()

    def refuse() -> None:
        raise RuntimeError("CUDA Error: out of memory")

    monkeypatch.setattr(made.engines[-1], "wake_up", refuse)
    with pytest.raises(torch.OutOfMemoryError, match="wake up"):
        backend.write([alone] * 4, unheard)
    assert made.stopped == made.engines
    assert backend.write([alone], unheard) == [in_lock_step(alone)]
    assert made.asked == [2, 4, 2]


def test_only_missing_cache_blocks_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch)
    backend = VllmBackend(folder, OnCard(), pool_of(rows=2, longest=64))
    jobs = [song(length=9, codes=2)] * 4
    a_block = 2 * 3 * 2 * 32 * 32 * 4
    assert backend.cache_bytes(jobs[:2]) == 0
    assert backend.cache_bytes(jobs) == 0
    assert backend.cache_bytes([song(length=200, codes=30)]) == (1 + 8 - 5) * a_block
    backend.rest()
    assert backend.cache_bytes(jobs) == 5 * a_block


def test_progress_ends_with_the_last_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch)
    heard: list[Any] = []
    backend = VllmBackend(folder, CpuDevice(), pool_of(rows=2, longest=64))
    backend.write([song(length=9, codes=2), song(length=9, codes=6)], lambda *step: heard.append(step))
    assert heard[-1] == (7, 7)
    assert heard == sorted(heard)
