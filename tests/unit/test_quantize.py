"""Quantisation replaces every linear layer or says so."""

import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.build import build
from acestep.checkpoints.quantize import quantize
from acestep.errors import RunFailedError
from acestep.knobs import WEIGHT_FORMATS, Quantization, Variant
from acestep.memory.tensors import plain


@pytest.mark.parametrize(("variant", "linears"), [(Variant.TURBO, 271), (Variant.XL_TURBO, 359)])
def test_every_linear_of_the_full_size_transformer_is_replaced(variant: Variant, linears: int) -> None:
    transformer = build("dummy", variant, dtype=torch.bfloat16, materialise="meta").transformer
    quantize(transformer, Quantization.INT8)
    weights = [module.weight.data for module in transformer.modules() if isinstance(module, nn.Linear)]
    assert len(weights) == linears
    assert not any(type(weight) is Tensor for weight in weights)


@pytest.mark.parametrize("quantization", Quantization)
def test_a_weight_without_values_becomes_what_torchao_makes_of_it(quantization: Quantization) -> None:
    from torchao import quantization as torchao

    ours, theirs = (build("tiny", dtype=torch.bfloat16, materialise="meta").transformer for _ in range(2))
    quantize(ours, quantization)
    torchao.quantize_(theirs, getattr(torchao, WEIGHT_FORMATS[quantization].torchao)(set_inductor_config=False))
    storages = set()
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert type(mine.data) is type(expected.data)
        for part, other in zip(plain(mine), plain(expected), strict=True):
            assert (part.shape, part.stride(), part.dtype) == (other.shape, other.stride(), other.dtype)
            assert part.untyped_storage().nbytes() == other.untyped_storage().nbytes()
            storages.add(part.untyped_storage()._cdata)
    assert len(storages) == sum(1 for weight in ours.parameters() for _ in plain(weight)), "two layers share memory"


def test_a_module_without_linear_layers_is_refused() -> None:
    with pytest.raises(RunFailedError, match="replaced 0 of 0"):
        quantize(nn.Conv1d(2, 2, 1), Quantization.INT8)


def test_a_silent_no_op_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchao.quantization

    monkeypatch.setattr(torchao.quantization, "quantize_", lambda *_: None)
    with pytest.raises(RunFailedError, match="replaced 0 of 1"):
        quantize(nn.Sequential(nn.Linear(8, 8)), Quantization.INT8)


def test_int8_is_close_to_what_it_replaces() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(256, 256)), torch.randn(8, 256)
    with torch.no_grad():
        before = module(x)
        quantize(module, Quantization.INT8)
        error = (module(x) - before).norm() / before.norm()
    assert error < 0.02
