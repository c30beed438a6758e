import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from acestep.checkpoints.lm import load_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends import vllm, vllm_engine
from acestep.lm.backends.pt import PtBackend
from acestep.lm.backends.vllm import VllmBackend
from acestep.lm.backends.vllm_memory import Pool, pool_of
from acestep.lm.job import Job
from acestep.thinking import Sampling
from acestep.units import MIB
from tests.tiny_planner import song, unheard, write_planner

POOL = pool_of(rows=4, longest=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planner(tmp_path_factory.mktemp("planner") / "lm")


def through_pytorch(folder: Path, jobs: Sequence[Job]) -> list[tuple[int, ...]]:
    return PtBackend(load_lm(str(folder), dtype=torch.float32), CpuDevice()).write(jobs, unheard)


def parts_of(backend: VllmBackend) -> list[weakref.ref[Any]]:
    """The engine, what runs it, its model and its cache, without holding any of them."""
    engine = backend._engine
    runner = engine.model_executor.driver_worker.worker.model_runner
    return [weakref.ref(part) for part in (engine, runner, runner.model, runner.kv_caches[0])]


def test_a_closed_backend_leaves_no_engine_and_the_next_one_writes_the_same(folder: Path) -> None:
    wrote = []
    for _ in range(2):
        backend = VllmBackend(folder, CpuDevice(), POOL)
        wrote.append(backend.write([song(length=40, codes=9, sampling=Sampling(), seed=2)], unheard))
        parts = parts_of(backend)
        assert all(part() is not None for part in parts)
        backend.close()
        assert [part() for part in parts] == [None] * len(parts)
        assert not torch.distributed.is_initialized()
    assert wrote[0] == wrote[1]


def test_the_pool_is_given_back_to_the_system(folder: Path) -> None:
    big = pool_of(rows=64, longest=4_096)
    VllmBackend(folder, CpuDevice(), POOL).close()
    gc.collect()
    before = psutil.Process().memory_info().rss
    backend = VllmBackend(folder, CpuDevice(), big)
    pool_bytes = big.blocks * backend._block_bytes
    backend.write([song(length=40, codes=5)], unheard)
    backend.close()
    assert pool_bytes > 300 * MIB
    assert psutil.Process().memory_info().rss - before < pool_bytes // 4


def test_a_rested_backend_and_one_too_small_start_a_fitting_engine(folder: Path) -> None:
    backend = VllmBackend(folder, CpuDevice(), pool_of(rows=1, longest=64))
    small = song(length=40, codes=9)
    first = backend.write([small], unheard)
    parts = parts_of(backend)
    assert backend.cache_bytes([small]) == 0
    backend.rest()
    assert [part() for part in parts] == [None] * len(parts)
    assert backend.cache_bytes([small]) == 3 * backend._block_bytes
    assert backend.write([small], unheard) == first
    assert backend.write([small, song(length=400, codes=3)], unheard)[:1] == first
    backend.close()


def test_a_write_that_fails_keeps_nothing_and_the_next_one_works(folder: Path) -> None:
    backend = VllmBackend(folder, CpuDevice(), POOL)
    jobs = [song(length=40, codes=9, sampling=Sampling())]
    expected = backend.write(jobs, unheard)
    parts = parts_of(backend)

    def out_of_memory(step: int, most: int) -> None:
        if step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        backend.write(jobs, out_of_memory)
    gc.collect()
    assert [part() for part in parts] == [None] * len(parts)
    assert backend.write(jobs, unheard) == expected
    backend.close()


def test_an_engine_that_fails_half_way_leaves_room_for_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acestep.lm.backends.vllm_model import PlannerLanguageModel

    made: list[weakref.ref[Any]] = []

    def out_of_memory(model: Any, weights: Any) -> set[str]:
        made.append(weakref.ref(model))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(PlannerLanguageModel, "load_weights", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            VllmBackend(folder, CpuDevice(), POOL)
    gc.collect()
    assert [model() for model in made] == [None]
    backend = VllmBackend(folder, CpuDevice(), POOL)
    assert backend.write([song(length=40, codes=3)], unheard)
    backend.close()


def test_rehearsing_reads_the_longest_sequences_and_writes_two_tokens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = VllmBackend(folder, CpuDevice(), POOL)
    asked: list[tuple[int, int]] = []
    ask = backend._ask

    def watched(prompt: tuple[int, ...], *, tokens: int) -> str:
        asked.append((len(prompt), tokens))
        return ask(prompt, tokens=tokens)

    monkeypatch.setattr(backend, "_ask", watched)
    backend.rehearse([song(length=40, codes=99, sampling=Sampling(), unguided=90)])
    assert asked == [(138, 2), (188, 2)]
    backend.close()


def test_settings_for_vllm_do_not_outlive_its_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    with vllm_engine._settings():
        assert vllm_engine.os.environ["HF_HUB_OFFLINE"] == "1"
    assert vllm_engine.os.environ["HF_HUB_OFFLINE"] == "0"
    assert "VLLM_LOGGING_LEVEL" not in vllm_engine.os.environ
    assert "VLLM_NO_USAGE_STATS" not in vllm_engine.os.environ


def test_one_engine_at_a_time(folder: Path) -> None:
    backend = VllmBackend(folder, CpuDevice(), POOL)
    with pytest.raises(RuntimeError, match="another vLLM engine"):
        VllmBackend(folder, CpuDevice(), POOL)
    assert backend.write([song(length=40, codes=3)], unheard)
    backend.close()


def test_rows_evicted_for_want_of_blocks_write_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [song(length=40, codes=60, sampling=Sampling(), seed=i, unguided=50) for i in range(3)]
    begun: list[int] = []
    cramped = Pool(rows=6, longest=128, blocks=14)
    monkeypatch.setattr(vllm, "pool_for", lambda jobs: cramped)
    backend = VllmBackend(folder, CpuDevice(), cramped)
    begin = backend._begin
    monkeypatch.setattr(backend, "_begin", lambda number, draft: (begun.append(number), begin(number, draft)))
    try:
        assert backend.write(jobs, unheard) == through_pytorch(folder, jobs)
    finally:
        backend.close()
    assert len(begun) > len(jobs)


def test_keys_without_their_prefix_are_loaded(tmp_path: Path, folder: Path) -> None:
    backend = VllmBackend(write_planner(tmp_path / "lm", prefixed=False), CpuDevice(), pool_of(rows=4, longest=256))
    try:
        jobs = [song(length=40, codes=9, sampling=Sampling())]
        assert backend.write(jobs, unheard) == through_pytorch(folder, jobs)
    finally:
        backend.close()
