"""LoRA and LoKr become part of the weights, by their definitions, from every layout of files that people have."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from acestep.adapters.choice import Adapter, adapter_of, adapters_from
from acestep.adapters.fuse import fuse
from acestep.adapters.names import layers_by_name
from acestep.checkpoints.build import build
from acestep.checkpoints.convert import original_key
from acestep.checkpoints.quantize import quantize
from acestep.errors import UsageError
from acestep.knobs import Quantization, Variant
from acestep.memory.tensors import plain
from tests.adapters import ENDINGS, NAMES, add_by_hand, lokr, lora, numbers, shape_of

LAYERS = (
    "layers.0.self_attn.to_q",
    "layers.1.cross_attn.to_k",
    "layers.2.self_attn.to_out.0",
    "layers.3.mlp.down_proj",
    "time_embed.linear_1",
    "condition_embedder",
)
CONVOLUTION = "proj_in_conv"
QUERY = LAYERS[0]
DRAW = np.random.default_rng(4)


WRITTEN_BY_LIBRARIES = Path(__file__).parents[1] / "fixtures" / "adapters"
"""Adapters of one layer, [64, 64], that peft 0.21.2, lycoris-lora 4.1.3 and diffusers 0.42.1 wrote.

For each, `expected.json` has what the library's own layer made of `INPUT` with the weights `WEIGHT`.
"""

WEIGHT = ((7 * torch.arange(64)[:, None] + 13 * torch.arange(64)) % 17 - 8) / 64
INPUT = ((5 * torch.arange(64)) % 11 - 5) / 8
EXPECTED: dict[str, list[float]] = json.loads((WRITTEN_BY_LIBRARIES / "expected.json").read_text())


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return build("tiny", dtype=torch.float32).transformer


@pytest.fixture
def transformer(tiny: nn.Module) -> nn.Module:
    """A transformer that the test may change."""
    return copy.deepcopy(tiny)


def bits(transformer: nn.Module) -> dict[str, bytes]:
    return {key: t.contiguous().view(torch.uint8).numpy().tobytes() for key, t in transformer.state_dict().items()}


FORMS = ("w1 w2", "w1 w2_a", "w1_a w2", "w1_a w2_a")

loras = st.fixed_dictionaries(
    {
        "rank": st.sampled_from([1, 4, 16]),
        "names": st.sampled_from(sorted(NAMES)),
        "endings": st.sampled_from(sorted(ENDINGS)),
        "power": st.integers(-2, 2),
    }
)
lokrs = st.fixed_dictionaries(
    {
        "rank": st.integers(1, 3),
        "names": st.sampled_from(sorted(NAMES)),
        "form": st.sampled_from(FORMS),
        "power": st.integers(-2, 2),
    }
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_adapters_of_any_layout_rank_and_scale_add_their_products(
    data: st.DataObject, tiny: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Several at once, in either type of weights: each sum is exact in float32, and rounded once."""
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    before = copy.deepcopy(tiny).to(dtype)
    ours, by_hand = copy.deepcopy(before), {key: t.double() for key, t in before.state_dict().items()}
    adapters = []
    for _ in range(data.draw(st.integers(1, 3))):
        layer, folder = data.draw(st.sampled_from(LAYERS)), tmp_path_factory.mktemp("adapter")
        draw, shape = np.random.default_rng(data.draw(st.integers(0, 99))), shape_of(tiny, layer)
        if data.draw(st.booleans()):
            made = lora(folder, layer, shape, draw, **data.draw(loras))
        else:
            made = lokr(folder, layer, shape, draw, **data.draw(lokrs))
        scale = data.draw(st.sampled_from([-1.0, 0.0, 0.25, 1.0, 2.0]))
        adapters.append(Adapter(path=made.path, scale=scale))
        by_hand[f"{layer}.weight"] = by_hand[f"{layer}.weight"] + scale * torch.from_numpy(made.adds)
    notes = fuse(ours, adapters)
    for key, tensor in ours.state_dict().items():
        # From the sum in float32, which rounds once more than one in float64 does.
        assert torch.equal(tensor, by_hand[key].float().to(dtype)), key
    assert [note.scale for note in notes] == [adapter.scale for adapter in adapters]


@pytest.mark.parametrize("case", EXPECTED)
def test_what_libraries_wrote_does_what_it_does_there(case: str, transformer: nn.Module) -> None:
    layer = transformer.get_submodule(QUERY)
    layer.weight = nn.Parameter(WEIGHT.clone(), requires_grad=False)
    fuse(transformer, adapters_from([WRITTEN_BY_LIBRARIES / case]))
    assert not torch.allclose(layer.weight, WEIGHT)
    assert torch.allclose(layer.weight @ INPUT, torch.tensor(EXPECTED[case]), rtol=1e-5, atol=1e-5)


def test_every_adapter_of_a_library_is_looked_at() -> None:
    assert {path.name for path in WRITTEN_BY_LIBRARIES.iterdir() if path.is_dir()} == set(EXPECTED)


@pytest.mark.parametrize("told", ["config", "rslora", "pattern", "header", "alpha"])
def test_the_scale_is_what_the_file_or_its_configuration_says(
    told: str, transformer: nn.Module, tmp_path: Path
) -> None:
    by_hand = copy.deepcopy(transformer)
    names = "diffusers" if told == "header" else "peft"
    made = lora(tmp_path, QUERY, shape_of(transformer, QUERY), DRAW, rank=4, names=names, power=2, told=told)
    add_by_hand(by_hand, made, 1.0)
    fuse(transformer, adapters_from([made.path]))
    assert bits(transformer) == bits(by_hand)


@pytest.mark.parametrize("names", ["diffusers", "kohya"])
def test_without_an_alpha_the_factor_is_one(names: str, transformer: nn.Module, tmp_path: Path) -> None:
    by_hand = copy.deepcopy(transformer)
    made = lora(tmp_path, QUERY, shape_of(transformer, QUERY), DRAW, names=names, power=None)
    add_by_hand(by_hand, made, 1.0)
    fuse(transformer, adapters_from([str(made.path)]))
    assert bits(transformer) == bits(by_hand)


def test_peft_multiplies_a_lokr_by_alpha_over_r_even_without_products(transformer: nn.Module, tmp_path: Path) -> None:
    by_hand = copy.deepcopy(transformer)
    made = lokr(tmp_path, QUERY, shape_of(transformer, QUERY), DRAW, names="peft", power=None)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOKR", "r": 8, "alpha": 4}))
    add_by_hand(by_hand, made, 0.5)
    fuse(transformer, adapters_from([made.path]))
    assert bits(transformer) == bits(by_hand)


@pytest.mark.parametrize("form", [*FORMS, "w1 t2", "w1_a t2", "lora"])
def test_the_convolution_changes_too(form: str, transformer: nn.Module, tmp_path: Path) -> None:
    by_hand, shape = copy.deepcopy(transformer), shape_of(transformer, CONVOLUTION)
    name = {"proj_in_conv": "proj_in.1"}
    arrays_of = lora if form == "lora" else lokr
    made = arrays_of(
        tmp_path, CONVOLUTION, shape, DRAW, names="diffusers", **({} if form == "lora" else {"form": form})
    )
    file = renamed(made.path, f"transformer.{CONVOLUTION}", f"lycoris_{name[CONVOLUTION].replace('.', '_')}")
    add_by_hand(by_hand, made, 1.0)
    fuse(transformer, adapters_from([file]))
    assert bits(transformer) == bits(by_hand)


def renamed(path: Path, old: str, new: str) -> Path:
    """The adapter in a file with another name for its layer."""
    tensors = load_file(path)
    save_file({key.replace(old, new): tensor for key, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "columns"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_lengths_are_those_of_the_file(rows: bool, scale: float, transformer: nn.Module, tmp_path: Path) -> None:
    """DoRA: the changed weight has the file's lengths, and a scale goes a part of the way."""
    weight = transformer.get_submodule(QUERY).weight.double()
    made = lora(tmp_path, QUERY, tuple(weight.shape), DRAW, names="lycoris")
    lengths = 1 + np.abs(numbers(DRAW, weight.shape[0] if rows else weight.shape[1]))
    tensors = load_file(made.path)
    shape = (-1, 1) if rows else (1, -1)
    tensors[f"{NAMES['lycoris'](QUERY)}.dora_scale"] = torch.tensor(lengths, dtype=torch.float32).reshape(shape)
    save_file(tensors, made.path)
    fuse(transformer, [Adapter(path=made.path, scale=scale)])
    moved = (transformer.get_submodule(QUERY).weight.double() - weight) / scale + weight
    assert torch.allclose(moved.norm(dim=1 if rows else 0), torch.from_numpy(lengths), rtol=1e-4)
    aim = weight + torch.from_numpy(made.adds)
    directions = torch.nn.functional.cosine_similarity(moved, aim, dim=1 if rows else 0)
    assert torch.allclose(directions, torch.ones_like(directions), atol=1e-5)


def test_peft_writes_lengths_under_a_name_of_its_own(transformer: nn.Module, tmp_path: Path) -> None:
    weight = transformer.get_submodule(QUERY).weight
    made = lora(tmp_path, QUERY, tuple(weight.shape), DRAW, told="config")
    file, name = made.path / "adapter_model.safetensors", NAMES["peft"](QUERY)
    save_file(load_file(file) | {f"{name}.lora_magnitude_vector": torch.full((weight.shape[0],), 2.0)}, file)
    (made.path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 4, "use_dora": True}))
    fuse(transformer, adapters_from([made.path]))
    assert torch.allclose(transformer.get_submodule(QUERY).weight.norm(dim=1), torch.tensor(2.0), rtol=1e-4)


def test_scale_zero_and_no_adapter_leave_every_bit(transformer: nn.Module, tmp_path: Path) -> None:
    before, tensors = bits(transformer), dict(transformer.named_parameters())
    made = lora(tmp_path, QUERY, shape_of(transformer, QUERY), DRAW, names="kohya")
    fuse(transformer, [])
    fuse(transformer, [Adapter(path=made.path, scale=0.0)])
    assert bits(transformer) == before
    assert all(tensor is tensors[name] for name, tensor in transformer.named_parameters())


@pytest.mark.parametrize("quantization", [Quantization.INT8])
def test_what_is_quantized_is_the_fused_weight(
    quantization: Quantization, transformer: nn.Module, tmp_path: Path
) -> None:
    by_hand = copy.deepcopy(transformer)
    made = lora(tmp_path, QUERY, shape_of(transformer, QUERY), DRAW, names="kohya")
    fuse(transformer, [Adapter(path=made.path, scale=2.0)])
    add_by_hand(by_hand, made, 2.0)
    for module in (transformer, by_hand):
        quantize(module, quantization)
    for ours, theirs in zip(transformer.parameters(), by_hand.parameters(), strict=True):
        assert all(map(torch.equal, plain(ours.data), plain(theirs.data)))


@pytest.mark.parametrize("variant", [Variant.TURBO, Variant.XL_TURBO])
def test_no_name_means_two_layers_and_every_layout_names_all(variant: Variant) -> None:
    transformer = build("dummy", variant, dtype=torch.bfloat16, materialise="meta").transformer
    layers = [name for name, part in transformer.named_modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    known = layers_by_name(layers)
    for layer in layers:
        key = (original_key("transformer", f"{layer}.weight") or "").removesuffix(".weight")
        bare = key.removeprefix("decoder.")
        for name in (f"base_model.model.{bare}", f"diffusion_model.{key}", f"transformer.{layer}", key):
            assert known[name] == layer
        for prefix in ("lora_unet_", "lora_unet_decoder_", "lycoris_"):
            assert known[prefix + bare.replace(".", "_")] == layer


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("folk.safetensors", "folk.safetensors", 1.0),
        ("loras/folk:0.8", "loras/folk", 0.8),
        ("folk:-1", "folk", -1.0),
        ("folk:0", "folk", 0.0),
        ("C:\\loras\\folk", "C:\\loras\\folk", 1.0),
        ("C:\\loras\\folk:0.5", "C:\\loras\\folk", 0.5),
        ("take:two", "take:two", 1.0),
        ("take:2:1e-1", "take:2", 0.1),
    ],
)
def test_a_number_after_the_last_colon_is_the_scale(text: str, path: str, scale: float) -> None:
    assert adapter_of(text) == Adapter(path=Path(path), scale=scale)


@pytest.mark.parametrize("text", ["", " ", " :1", "folk:11", "folk:nan", "folk:inf", "folk:1e400"])
def test_a_name_that_is_empty_or_a_scale_too_large_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="adapter"):
        adapter_of(text)


def test_a_path_that_no_document_can_hold_is_a_usage_error_that_can_be_printed() -> None:
    with pytest.raises(UsageError, match="is not UTF-8") as refused:
        adapter_of("folk-\udcff.safetensors:0.5")
    assert str(refused.value).encode()
