"""Packed float32 weights of the models that make songs on the CPU: the same results, with adapters and without."""

import copy
import weakref
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from acestep.adapters.apart import AdaptersApart
from acestep.adapters.choice import Adapter
from acestep.checkpoints.build import build
from acestep.checkpoints.libraries import ResidualFSQ
from acestep.checkpoints.quantize import quantize
from acestep.devices.cpu import CpuDevice
from acestep.engine import kept_model
from acestep.engine.kept_model import KeptModel
from acestep.engine.pipeline import Pipeline
from acestep.hardware.card import CPU
from acestep.knobs import Knobs, Quantization
from acestep.limits.plan import resolve
from acestep.memory import packed
from acestep.memory.packed import NARROWEST, CpuLinear, can_pack, pack_linears, packed_weight
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


def kinds_of_linears(model: nn.Module) -> list[type[nn.Module]]:
    """The classes of the linear layers outside of the quantizer of audio tokens."""
    apart = {id(m) for fsq in model.modules() if isinstance(fsq, ResidualFSQ) for m in fsq.modules()}
    return [type(m) for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in apart]


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


def test_while_layers_are_packed_one_by_one_no_second_weight_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(NARROWEST, NARROWEST)) for _ in range(9)))
    plain = [weakref.ref(part[0]) for part in model]
    alive: list[int] = []

    def counted(weight: torch.Tensor) -> torch.Tensor:
        alive.append(sum(layer() is not None for layer in plain))
        return packed_weight(weight)

    monkeypatch.setattr(packed, "packed_weight", counted)
    pack_linears(model)
    assert alive == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_quantised_weights_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(NARROWEST, NARROWEST))
    quantize(model, Quantization.INT8)
    pack_linears(model)
    assert type(model[0]) is nn.Linear


@torch.no_grad()
def test_a_cover_of_a_packed_model_has_the_codes_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers computes with the weights of the quantizer themselves."""
    monkeypatch.setattr(packed, "NARROWEST", 1)
    plain, quick = (build("tiny", dtype=torch.float32).audio_tokenizer for _ in range(2))
    pack_linears(quick)
    assert any(isinstance(module, CpuLinear) for module in quick.modules())
    rows = torch.randn(3, plain.quantizer.project_in.in_features)
    assert all(torch.equal(*pair) for pair in zip(quick.quantizer(rows), plain.quantizer(rows), strict=True))


def test_a_model_that_is_compiled_is_not_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The compiler takes no packed weights."""
    monkeypatch.setattr(packed, "NARROWEST", 1)
    folder = write_diffusers(build("tiny", dtype=torch.float32), tmp_path / "model")
    kept = KeptModel(str(folder), CpuDevice(), lambda: None)
    for compiled in (False, True, False):
        plan = msgspec.structs.replace(resolve(CPU, load_tiers()), compile=compiled)
        layers = kept.of(plan, torch.float32, ()).transformer.modules()
        assert any(isinstance(layer, CpuLinear) for layer in layers) is not compiled


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
        kinds = [kind for part in components.modules().values() for kind in kinds_of_linears(part)]
        assert set(kinds) == {CpuLinear if narrowest == 1 and dtype is torch.float32 else nn.Linear}
        songs.append(Pipeline(components, Knobs(), CpuDevice(dtype)).generate(request).songs[0].audio)
    assert np.abs(songs[0] - songs[1]).max() <= 1e-3


def test_a_model_that_is_noise_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights share a few pages of memory."""
    packing: list[nn.Module] = []
    monkeypatch.setattr(kept_model, "pack_linears", packing.append)
    KeptModel("tiny", CpuDevice(), lambda: None).of(resolve(CPU, load_tiers()), torch.float32, ())
    assert not packing
