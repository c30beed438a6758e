"""The real mlx-lm on MLX's CPU build: its models, caches and arrays are those of Apple hardware, its kernels not."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from acestep.checkpoints.lm import load_lm
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.mlx import _PREFILL_TOKENS, MlxBackend
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.thinking import Sampling
from tests.tiny_planner import GREEDY, song, unheard, write_planner

GUIDED = replace(GREEDY, guidance=2.0)


def songs() -> list[Job]:
    return [
        song(length=_PREFILL_TOKENS + 40, codes=6),
        song(length=64, codes=9, sampling=GUIDED),
        song(length=32, codes=8, sampling=Sampling(), seed=5, unguided=99),
        song(length=31, codes=40, sampling=Sampling(guidance=1), max_tokens=7),
    ]


@pytest.mark.parametrize("prefixed", [True, False], ids=["prefixed", "without prefix"])
def test_songs_of_every_kind_are_those_of_pytorch(tmp_path: Path, prefixed: bool) -> None:
    folder = write_planner(tmp_path / "lm", prefixed=prefixed)
    backend = MlxBackend(folder)
    expected = PtBackend(load_lm(str(folder), dtype=torch.float32), CpuDevice()).write(songs(), unheard)
    assert backend.write(songs(), unheard) == expected
    backend.rest()
    assert backend.write(songs(), unheard) == expected
    backend.close()


def test_keys_and_values_never_outgrow_their_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lm.models import cache

    made = []
    make = cache.make_prompt_cache
    monkeypatch.setattr(cache, "make_prompt_cache", lambda model: made.append(make(model)) or made[-1])
    backend = MlxBackend(write_planner(tmp_path / "lm"))
    backend.write(songs(), unheard)
    grown = sum(part.nbytes for parts in made for part in parts)
    assert 0 < grown <= backend.cache_bytes(songs())
    backend.rehearse(songs())
    backend.close()
