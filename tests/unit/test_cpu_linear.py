"""Packed float32 weights of the models that make songs on the CPU: the same results, with adapters and without."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from acestep.adapters.apart import AdaptersApart
from acestep.adapters.choice import Adapter
from acestep.checkpoints.build import build
from acestep.devices.cpu import CpuDevice
from acestep.engine import kept_model
from acestep.engine.kept_model import KeptModel
from acestep.engine.pipeline import Pipeline
from acestep.hardware.card import CPU
from acestep.knobs import Knobs
from acestep.limits.plan import resolve
from acestep.memory import packed
from acestep.memory.packed import NARROWEST, CpuLinear, can_pack, pack_linears
from acestep.request import Request
from acestep.tiers import load_tiers
from tests.adapters import lora
from tests.checkpoints import write_diffusers

pytestmark = pytest.mark.skipif(
    not can_pack(torch.empty(NARROWEST, NARROWEST), NARROWEST),
    reason="this processor has no kernels for packed weights",
)


def packed_stack(dtype: torch.dtype) -> nn.Sequential:
    wide, narrow = nn.Linear(NARROWEST, 2 * NARROWEST), nn.Linear(2 * NARROWEST, NARROWEST - 1, bias=False)
    made = nn.Sequential(wide, nn.Sequential(nn.SiLU(), narrow), nn.Conv1d(NARROWEST, NARROWEST, 1)).to(dtype)
    pack_linears(made)
    return made


@pytest.mark.parametrize("shape", [(1, NARROWEST), (0, NARROWEST), (700, NARROWEST), (2, 3, NARROWEST)])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_packed_layer_makes_what_the_layer_made(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    layer, rows = nn.Linear(NARROWEST, NARROWEST + 5, bias=bias), torch.randn(shape)
    holder = nn.Sequential(copy.deepcopy(layer))
    pack_linears(holder)
    assert type(holder[0]) is CpuLinear
    found, expected = holder(rows), layer(rows)
    assert found.is_contiguous()
    assert torch.allclose(found, expected, rtol=0, atol=2e-5)


def test_only_float32_weights_of_wide_linear_layers_are_packed() -> None:
    kinds = {
        dtype: [type(module) for module in packed_stack(dtype).modules() if not isinstance(module, nn.Sequential)]
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert kinds[torch.float32] == [CpuLinear, nn.SiLU, nn.Linear, nn.Conv1d]
    assert CpuLinear not in kinds[torch.bfloat16]


@torch.no_grad()
def test_adapters_beside_packed_weights_change_songs_as_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packed, "NARROWEST", 1)
    plain, layer = build("tiny", dtype=torch.float32).transformer, "layers.1.mlp.down_proj"
    quick = copy.deepcopy(plain)
    pack_linears(quick)
    file = lora(tmp_path, layer, (64, 128), np.random.default_rng(3), names="peft", told="config", power=1)
    adapter, rows = Adapter(path=file.path, scale=0.5, fused=False), torch.randn(2, 5, 128)
    untouched = quick.get_submodule(layer)(rows)
    kinds = [type(module) for module in quick.modules()]
    aparts = [AdaptersApart(transformer, torch.float32) for transformer in (quick, plain)]
    for apart in aparts:
        apart.use([adapter], lambda: None)
    ours, theirs = (transformer.get_submodule(layer)(rows) for transformer in (quick, plain))
    assert torch.allclose(ours, theirs, rtol=0, atol=2e-5)
    assert not torch.allclose(ours, untouched, atol=1e-2)
    aparts[0].use([], lambda: None)
    assert [type(module) for module in quick.modules()] == kinds
    assert torch.equal(quick.get_submodule(layer)(rows), untouched)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_packed_when_it_is_loaded_for_the_cpu_in_float32_and_its_songs_sound_the_same(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = write_diffusers(build("tiny", dtype=torch.float32), tmp_path / "model")
    request = Request(caption="slow piano", duration_s=10, seed=3)
    plan = resolve(CPU, load_tiers())
    songs = []
    for narrowest in (1, 10**6):
        monkeypatch.setattr(packed, "NARROWEST", narrowest)
        components = KeptModel(str(folder), CpuDevice(dtype), lambda: None).of(plan, dtype, ())
        linears = [m for part in components.modules().values() for m in part.modules() if isinstance(m, nn.Linear)]
        assert all((type(m) is CpuLinear) == (narrowest == 1 and dtype is torch.float32) for m in linears)
        songs.append(Pipeline(components, Knobs(), CpuDevice(dtype)).generate(request).songs[0].audio)
    assert np.abs(songs[0] - songs[1]).max() <= 1e-3


def test_a_model_that_is_noise_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights share a few pages of memory."""
    packing: list[nn.Module] = []
    monkeypatch.setattr(kept_model, "pack_linears", packing.append)
    KeptModel("tiny", CpuDevice(), lambda: None).of(resolve(CPU, load_tiers()), torch.float32, ())
    assert not packing
