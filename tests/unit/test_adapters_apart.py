"""Adapters beside the weights: what fusing makes of them, switched and scaled without a weight being written."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from acestep.adapters.apart import AdaptersApart
from acestep.adapters.choice import Adapter
from acestep.adapters.fuse import fuse
from acestep.checkpoints.build import build
from acestep.checkpoints.quantize import quantize
from acestep.errors import InvalidInputError
from acestep.knobs import Quantization
from acestep.memory.tensors import plain
from tests.adapters import NAMES, Made, lokr, lora, shape_of

LAYERS = {"layers.0.self_attn.to_q": (64, 64), "layers.1.mlp.down_proj": (64, 128), "condition_embedder": (64, 64)}
CONVOLUTION = "proj_in_conv"
FORMS = ("lora", "w1 w2", "w1_a w2_a")


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return build("tiny", dtype=torch.float32).transformer


@pytest.fixture
def transformer(tiny: nn.Module) -> nn.Module:
    return copy.deepcopy(tiny)


def made(folder: Path, layer: str, shape: tuple[int, ...], form: str, seed: int = 3) -> Made:
    draw = np.random.default_rng(seed)
    if form == "lora":
        return lora(folder, layer, shape, draw, names="peft", told="config", power=1)
    return lokr(folder, layer, shape, draw, form=form, power=1)


def unfused(made: Made, scale: float = 1.0) -> Adapter:
    return Adapter(path=made.path, scale=scale, fused=False)


def bits(transformer: nn.Module) -> list[bytes]:
    return [
        inner.contiguous().view(torch.uint8).numpy().tobytes()
        for p in transformer.parameters()
        for inner in plain(p.data)
    ]


def given_to(transformer: nn.Module, layer: str) -> torch.Tensor:
    into = transformer.get_submodule(layer).weight.shape[1]
    draw = torch.Generator().manual_seed(1)
    return torch.randn((2, into, 10) if layer == CONVOLUTION else (2, 5, into), generator=draw)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer", [*LAYERS, CONVOLUTION])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_makes_what_its_fused_weight_makes(
    form: str, layer: str, dtype: torch.dtype, transformer: nn.Module, tmp_path: Path
) -> None:
    transformer.to(dtype)
    fused = copy.deepcopy(transformer)
    one, two = (made(tmp_path / str(n), layer, shape_of(transformer, layer), form, n) for n in (1, 2))
    if layer == CONVOLUTION:
        for adapter in (one, two):
            file = adapter.path / "adapter_model.safetensors" if form == "lora" else adapter.path
            names = NAMES["peft" if form == "lora" else "lycoris"]
            tensors = load_file(file)
            save_file({key.replace(names(layer), names("proj_in.1")): tensor for key, tensor in tensors.items()}, file)
    fuse(fused, [Adapter(path=one.path, scale=0.5), Adapter(path=two.path, scale=-1.0)])
    given = given_to(transformer, layer).to(dtype)
    plainly = transformer.get_submodule(layer)(given).float()
    AdaptersApart(transformer, dtype).use([unfused(one, 0.5), unfused(two, -1.0)], lambda: None)
    ours, theirs = (module.get_submodule(layer)(given).float() for module in (transformer, fused))
    assert torch.allclose(ours, theirs, rtol=0, atol=torch.finfo(dtype).eps * 8 * theirs.abs().max())
    assert not torch.allclose(ours, plainly, atol=1e-2)


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_no_weight_changes_and_without_adapters_the_layers_are_what_they_were(
    quantization: Quantization | None, transformer: nn.Module, tmp_path: Path
) -> None:
    if quantization is not None:
        quantize(transformer, quantization)
    before, kinds = bits(transformer), [type(module) for module in transformer.modules()]
    weights = dict(transformer.named_parameters())
    apart = AdaptersApart(transformer, torch.float32)
    asked = zip(FORMS, LAYERS.items(), strict=True)
    chosen = [unfused(made(tmp_path / form, layer, shape, form)) for form, (layer, shape) in asked]
    apart.use(chosen, lambda: None)
    held = dict(transformer.named_parameters())
    assert all(held[name] is weight for name, weight in weights.items())
    added = {name: tensor for name, tensor in held.items() if name not in weights}
    assert sum(tensor.numel() for tensor in added.values()) == sum(apart.memory.tensors) > 0
    apart.use([], lambda: None)
    assert bits(transformer) == before
    assert [type(module) for module in transformer.modules()] == kinds
    assert apart.memory.tensors == ()


def test_switching_and_scaling_reads_no_file_and_moves_no_weight(transformer: nn.Module, tmp_path: Path) -> None:
    layer, shape = next(iter(LAYERS.items()))
    folk, rock = (made(tmp_path / str(n), layer, shape, "lora", n) for n in (1, 2))
    apart, moved = AdaptersApart(transformer, torch.float32), list[int]()
    given = given_to(transformer, layer)
    plainly = transformer.get_submodule(layer)(given)

    def sound(*adapters: Adapter) -> torch.Tensor:
        apart.use(adapters, lambda: moved.append(1))
        return transformer.get_submodule(layer)(given)

    silent_rock = unfused(rock, 0.0)
    sound(unfused(folk), unfused(rock))
    for one in (folk, rock):
        (one.path / "adapter_model.safetensors").unlink()
    alone, half = sound(unfused(folk), silent_rock) - plainly, sound(unfused(folk, 0.5), silent_rock) - plainly
    assert torch.allclose(half, alone / 2, atol=1e-5)
    assert torch.allclose(
        sound(unfused(folk), unfused(rock)) - sound(unfused(folk, 0.0), unfused(rock)), alone, atol=1e-4
    )
    assert torch.equal(sound(unfused(folk, 0.0), silent_rock), plainly)
    assert len(moved) == 1


def test_the_order_of_names_changes_no_bit(tiny: nn.Module, tmp_path: Path) -> None:
    layer, shape = next(iter(LAYERS.items()))
    chosen = [unfused(made(tmp_path / str(n), layer, shape, "lora", n), 8.0) for n in range(3)]

    def sound(adapters: list[Adapter]) -> torch.Tensor:
        transformer = copy.deepcopy(tiny)
        AdaptersApart(transformer, torch.float32).use(adapters, lambda: None)
        return transformer.get_submodule(layer)(given_to(transformer, layer))

    assert torch.equal(sound(chosen), sound(chosen[::-1]))


def test_what_songs_are_told_is_what_is_switched_on(transformer: nn.Module, tmp_path: Path) -> None:
    layer, shape = next(iter(LAYERS.items()))
    folk, rock = (made(tmp_path / name, layer, shape, "lora") for name in ("folk", "rock"))
    told = AdaptersApart(transformer, torch.float32).use([unfused(folk, 0.5), unfused(rock, 0.0)], lambda: None)
    assert [(one.name, one.scale, one.fused) for one in told] == [("folk", 0.5, False)]


def test_lengths_of_weights_need_the_weights_and_are_refused(transformer: nn.Module, tmp_path: Path) -> None:
    layer, shape = next(iter(LAYERS.items()))
    dora = lora(tmp_path, layer, shape, np.random.default_rng(1), names="lycoris")
    lengths = {f"{NAMES['lycoris'](layer)}.dora_scale": torch.ones(shape[0], 1)}
    save_file(load_file(dora.path) | lengths, dora.path)
    before = bits(transformer)
    with pytest.raises(InvalidInputError, match="leave out --lora-unfused"):
        AdaptersApart(transformer, torch.float32).use([unfused(dora)], lambda: None)
    assert bits(transformer) == before
