"""What a layer makes of a few rows: the same numbers as the library's arithmetic, in half of the operations."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm

from acestep.lm.heads import FEW, MANY, Arithmetic, Rotation, for_together, rms_normed
from acestep.lm.layer_products import LayerProducts
from acestep.lm.products import Products
from acestep.memory.ring import Part
from tests.copying_cards import EagerCard


class Launches(TorchDispatchMode):
    """Counts the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not func.is_view and func.overloadpacket is not torch.ops.aten.empty_like
        return func(*args, **(kwargs or {}))


WIDTH, INNER = 128, 192
"""`INNER` is a multiple of 64, as in real models. On the CPU, PyTorch has another exponential function for the values
that are left over at the end of a row.
"""


def _layer(dtype: torch.dtype, heads: int, groups: int, dim: int) -> Qwen3DecoderLayer:
    config = Qwen3Config(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        head_dim=dim,
        num_attention_heads=heads * groups,
        num_key_value_heads=heads,
        num_hidden_layers=1,
    )
    layer = Qwen3DecoderLayer(config, 0).to(dtype).requires_grad_(False)
    for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
        norm.weight.copy_(torch.randn(dim))
    return layer


def _rotation(rows: int, dim: int, dtype: torch.dtype) -> Rotation:
    angles = (torch.randn(rows, dim // 2) * 100).repeat(1, 2)
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


def _made(by: Arithmetic, layer: Any, normed: torch.Tensor, rotation: Rotation) -> list[torch.Tensor]:
    """Queries, keys, values, and the gated values."""
    products = LayerProducts(layer, Products(EagerCard()))
    return [*by.heads(layer.self_attn, products, normed, rotation), by.gated(layer.mlp, products, normed)]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    rows=st.integers(1, 16),
    heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    dim=st.sampled_from([4, 16, 32]),
    scale=st.sampled_from([1e-3, 1.0, 300.0]),
    in_one_piece=st.booleans(),
)
def test_both_give_the_same_bits(
    seed: int, dtype: torch.dtype, rows: int, heads: int, groups: int, dim: int, scale: float, in_one_piece: bool
) -> None:
    torch.manual_seed(seed)
    layer, rotation = _layer(dtype, heads, groups, dim), _rotation(rows, dim, dtype)
    normed = (torch.randn(rows, WIDTH) * scale).to(dtype)
    usual = _made(MANY, layer, normed, rotation)
    # In float32 the matrix library rounds the last columns otherwise where they are fewer than 16.
    Part("lm", list(layer.modules()), in_one_piece=in_one_piece and dim >= 16).enter(EagerCard())
    fewer = _made(FEW, layer, normed, for_together(rotation))
    for one, other in zip(usual, fewer, strict=True):
        assert torch.equal(one, other)
        assert one.dtype is other.dtype is dtype


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    rows=st.integers(1, 16),
    width=st.sampled_from([4, 48, 1_024]),
    scale=st.sampled_from([1e-3, 1.0, 300.0]),
)
def test_a_norm_gives_the_library_s_bits(seed: int, dtype: torch.dtype, rows: int, width: int, scale: float) -> None:
    torch.manual_seed(seed)
    norm = Qwen3RMSNorm(width).to(dtype).requires_grad_(False)
    norm.weight.copy_(torch.randn(width))
    given_rows = (torch.randn(rows, width) * scale).to(dtype)
    kept = given_rows.clone()
    with torch.no_grad():
        assert torch.equal(rms_normed(norm, given_rows), norm(given_rows))
    assert torch.equal(given_rows, kept), "the rows that it reads stay"


def test_a_norm_in_bfloat16_launches_fewer_operations_than_the_library_s() -> None:
    norm, rows = Qwen3RMSNorm(48).to(torch.bfloat16).requires_grad_(False), torch.randn(3, 48).to(torch.bfloat16)
    with Launches() as usual:
        norm(rows)
    with Launches() as fewer:
        rms_normed(norm, rows)
    assert fewer.count < usual.count


def _launched(by: Arithmetic, layer: Any, rotation: Rotation, rows: torch.Tensor) -> tuple[int, int]:
    """The launches for queries, keys and values, and those for the gated values."""
    products = LayerProducts(layer, Products(EagerCard()))
    with Launches() as heads:
        by.heads(layer.self_attn, products, rows, rotation)
    with Launches() as gated:
        by.gated(layer.mlp, products, rows)
    return heads.count, gated.count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_rows_take_few_launches_and_fewest_where_the_weights_are_in_one_piece(dtype: torch.dtype) -> None:
    layer, rotation, rows = _layer(dtype, 2, 2, 16), _rotation(3, 16, dtype), torch.randn(3, WIDTH).to(dtype)
    heads, gated = _launched(MANY, layer, rotation, rows)
    fewer_heads, same_gated = _launched(FEW, layer, for_together(rotation), rows)
    assert (fewer_heads <= 0.6 * heads, same_gated) == (True, gated)
    Part("lm", list(layer.modules()), in_one_piece=True).enter(EagerCard())
    fewest_heads, fewer_gated = _launched(FEW, layer, for_together(rotation), rows)
    assert fewest_heads == fewer_heads - len(["product of keys", "product of values", "copy of all three"])
    assert fewer_gated == gated - 1
    assert fewest_heads <= 0.5 * heads
