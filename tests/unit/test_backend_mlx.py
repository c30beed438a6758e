import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from acestep.checkpoints.lm import load_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.mlx import _PREFILL_TOKENS, GROWTH_TOKENS, MlxBackend
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.thinking import Sampling
from tests import fake_mlx
from tests.tiny_planner import GREEDY, song, unheard, write_planner

KINDS = [GREEDY, replace(GREEDY, guidance=2.0), Sampling(guidance=1), Sampling()]


@pytest.fixture(scope="module", params=[True, False], ids=["prefixed", "without prefix"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planner(tmp_path_factory.mktemp("planner") / "lm", prefixed=request.param)


@pytest.fixture
def backend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MlxBackend:
    fake_mlx.install(monkeypatch)
    return MlxBackend(folder)


def songs() -> list[Job]:
    return [song(length=20 + 9 * i, codes=8 - i, sampling=kind, seed=i, unguided=31) for i, kind in enumerate(KINDS)]


def test_songs_of_every_kind_are_those_of_pytorch(folder: Path, backend: MlxBackend) -> None:
    pt = PtBackend(load_lm(str(folder), dtype=torch.float32), CpuDevice())
    heard: list[Any] = []
    assert backend.write(songs(), lambda *step: heard.append(step)) == pt.write(songs(), unheard)
    assert heard == [(step, 9) for step in range(1, 10)]


def test_long_prompts_are_read_in_chunks_and_their_last_token_apart(backend: MlxBackend) -> None:
    backend.write([song(length=2 * _PREFILL_TOKENS + 6, codes=1)], unheard)
    assert backend._model.read[:4] == [_PREFILL_TOKENS, _PREFILL_TOKENS, 5, 1]


def test_rehearsing_ends_with_two_steps_behind_the_longest_sequences(backend: MlxBackend) -> None:
    backend.rehearse([song(length=30, codes=20)])
    assert sum(backend._model.read) == 30 + 21
    assert backend._model.read[-2:] == [1, 1]


def test_cache_bytes_include_the_last_enlargement(backend: MlxBackend) -> None:
    job = song(length=30, codes=20, sampling=Sampling(), unguided=10)
    a_token = 2 * 3 * 2 * 32 * 4
    assert backend.cache_bytes([job]) == (51 + 31 + 2 * (GROWTH_TOKENS - 1)) * a_token


def test_memory_errors_are_pytorchs(backend: MlxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arrays: Any) -> None:
        raise RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum")

    monkeypatch.setattr(fake_mlx.Model, "__call__", refuse)
    with pytest.raises(torch.OutOfMemoryError, match="Attempting to allocate"):
        backend.write(songs(), unheard)


def test_other_errors_are_raised_unchanged(backend: MlxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arrays: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(fake_mlx.Model, "__call__", refuse)
    with pytest.raises(RuntimeError, match="shapes") as caught:
        backend.write(songs(), unheard)
    assert not isinstance(caught.value, torch.OutOfMemoryError)


def test_close_frees_the_weights_and_after_rest_it_writes_again(backend: MlxBackend) -> None:
    first = backend.write(songs(), unheard)
    model = weakref.ref(backend._model.torch_model)
    backend.rest()
    assert model() is None
    assert backend.write(songs(), unheard) == first
    backend.close()
    backend.close()
