"""Packed weights: the same products and the same tokens, in place of the weights that they are made of."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.checkpoints.architecture import QwenArchitecture, arguments
from acestep.checkpoints.libraries import Qwen3Config, Qwen3ForCausalLM
from acestep.checkpoints.lm import LanguageModel, quantize_lm
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Knobs, Quantization
from acestep.lm import language
from acestep.lm import packed as packed_module
from acestep.lm.backends.pt import PtBackend
from acestep.lm.language import Language
from acestep.lm.packed import (
    OFTEN,
    TOGETHER,
    Head,
    PackedLinear,
    pack_layers,
    packed_together,
)
from acestep.lm.products import LARGE
from acestep.memory.packed import can_pack, packed_product, packed_weight
from tests.grammars import Counted, job_of
from tests.tiny_planner import unheard, write_planner

VOCABULARY = 2 * LARGE
CODES = range(LARGE - 100, VOCABULARY - 100)
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(torch.empty(LARGE, LARGE, dtype=dtype), LARGE)]

pytestmark = pytest.mark.skipif(not DTYPES, reason="this processor has no kernels for packed weights")


def _model(dtype: torch.dtype) -> LanguageModel:
    torch.manual_seed(5)
    shape = QwenArchitecture(
        vocab_size=VOCABULARY,
        hidden_size=LARGE,
        intermediate_size=2 * LARGE,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=64,
    )
    module = Qwen3ForCausalLM(Qwen3Config(**arguments(shape), tie_word_embeddings=True))
    return LanguageModel(id="wide", module=module.eval().requires_grad_(False).to(dtype))


def _linears(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | PackedLinear)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 100])
@pytest.mark.parametrize("shape", [(LARGE, LARGE), (3 * LARGE + 17, 2 * LARGE), (LARGE, 1_001)])
def test_a_product_is_that_of_the_weight(shape: tuple[int, int], rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    hidden, weight = torch.randn(rows, shape[1]).to(dtype), torch.randn(*shape).to(dtype)
    found, expected = packed_product(hidden, packed_weight(weight)), F.linear(hidden, weight)
    assert found.is_contiguous()
    assert found.dtype is dtype
    # Errors of rounding add up like a random walk over the terms of a sum.
    exact = F.linear(hidden.double(), weight.double())
    assert (found - exact).norm() <= torch.finfo(dtype).eps * shape[1] ** 0.5 * exact.norm()
    if dtype is torch.bfloat16 and not torch.cpu._is_amx_tile_supported():
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("guided", [False, True])
@torch.no_grad()
def test_a_packed_model_writes_the_same_tokens(guided: bool, dtype: torch.dtype) -> None:
    model = _model(dtype)
    grammar = Counted(2 * OFTEN, CODES)
    jobs = [job_of(grammar, range(20), range(18) if guided else (), seed=seed) for seed in range(3)]
    expected = PtBackend(model, CpuDevice(dtype)).write(jobs, unheard)
    pack_layers(model.module.model)
    assert all(isinstance(linear, PackedLinear) for linear in _linears(model.module.model))
    assert PtBackend(model, CpuDevice(dtype)).write(jobs, unheard) == expected


def test_packed_weights_take_the_place_of_the_others() -> None:
    model = _model(DTYPES[0]).module.model
    kept = {name for name, weight in model.named_parameters() if weight.dim() == 1 or "embed" in name}
    pack_layers(model)
    assert {name for name, _ in model.named_parameters()} == kept


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_that_read_the_same_rows_share_a_weight_and_each_has_its_own_columns(dtype: torch.dtype) -> None:
    model = _model(dtype).module.model
    plain = copy.deepcopy(model)
    pack_layers(model)
    for layer, before in zip(model.layers, plain.layers, strict=True):
        for parent, names in ((layer.self_attn, TOGETHER[0]), (layer.mlp, TOGETHER[1])):
            layers = [getattr(parent, name) for name in names]
            assert packed_together(layers) is layers[0].weight
            assert packed_together([*layers, layer.self_attn.o_proj]) is None
            for name, packed in zip(names, layers, strict=True):
                linear = getattr(before.self_attn if parent is layer.self_attn else before.mlp, name)
                rows = torch.randn(3, LARGE).to(dtype)
                expected = linear(rows)
                assert packed(rows).shape == expected.shape == (3, packed.out_features)
                assert (packed(rows) - expected).norm() <= LARGE**0.5 * torch.finfo(dtype).eps * expected.norm()
    assert packed_together([nn.Linear(3, 3)]) is None


def test_only_large_weights_of_a_linear_layer_s_own_are_packed() -> None:
    layers = nn.ModuleDict(
        {
            "small": nn.Linear(LARGE, LARGE - 1, bias=False),
            "narrow": nn.Linear(LARGE - 1, LARGE, bias=False),
            "biased": nn.Linear(LARGE, LARGE),
            "wide": nn.Linear(LARGE, LARGE, bias=False, dtype=torch.float64),
            "plain": nn.Linear(LARGE, LARGE, bias=False, dtype=DTYPES[0]),
        }
    )
    pack_layers(layers)
    assert [name for name, layer in layers.items() if isinstance(layer, PackedLinear)] == ["plain"]
    quantised = _model(torch.float32)
    quantize_lm(quantised, Quantization.INT8)
    pack_layers(quantised.module.model)
    assert not any(isinstance(linear, PackedLinear) for linear in _linears(quantised.module))


class Multiplied:
    """Products that are counted; those with packed weights are none of them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, rows: Tensor, weight: Tensor) -> Tensor:
        self.count += 1
        return F.linear(rows, weight)


def test_a_head_packs_what_is_asked_for_often_and_nothing_else() -> None:
    weight, product = torch.randn(3 * LARGE, LARGE).to(DTYPES[0]), Multiplied()
    head = Head(weight, product, packs=True)
    often, once = (range(3), range(100, 100 + LARGE)), (range(50, 50 + LARGE),)
    for spans, times, counts in [
        (often, OFTEN - 1, 2),
        # The large range is packed now, the small one never is.
        (often, 5, 1),
        (once, 1, 1),
        # What was packed is gone.
        (often, OFTEN - 1, 2),
        (often, 1, 1),
    ]:
        for _ in range(times):
            states, before = torch.randn(2, LARGE).to(DTYPES[0]), product.count
            made = head.logits(states, spans)
            assert product.count - before == counts
            expected = F.linear(states, weight).float()[:, [i for ids in spans for i in ids]]
            assert made.dtype is torch.float32
            assert (made - expected).norm() <= LARGE**0.5 * torch.finfo(DTYPES[0]).eps * expected.norm()


@pytest.mark.parametrize(("packs", "most"), [(False, LARGE**3), (True, LARGE * LARGE - 1)])
def test_a_head_packs_nothing_of_a_model_that_is_not_packed_and_nothing_large(
    packs: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_module, "MOST_PACKED", most)
    product = Multiplied()
    head = Head(torch.randn(2 * LARGE, LARGE).to(DTYPES[0]), product, packs=packs)
    for _ in range(2 * OFTEN):
        head.logits(torch.randn(1, LARGE).to(DTYPES[0]), (range(LARGE),))
    assert product.count == 2 * OFTEN


@pytest.mark.parametrize("name", ["folder", "dummy:0.6B"])
def test_a_model_on_the_cpu_is_packed_unless_it_is_noise(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of a model that is noise share a few pages of memory."""
    packed: list[nn.Module] = []
    monkeypatch.setattr(language, "pack_layers", packed.append)
    monkeypatch.setattr(language, "_tokenizer", lambda *_: language.BytePlannerTokenizer(language.COMPACT))
    folder = write_planner(tmp_path / "lm", vocabulary=language.COMPACT.size) if name == "folder" else None
    of = Language(str(folder or name), Knobs(lm="0.6B"), CpuDevice(), longest_s=10, warn=pytest.fail)
    assert packed == ([of.modules()["lm"].model] if folder else [])
