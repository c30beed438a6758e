"""Queries and keys of a few rows: the same numbers as the library's arithmetic, in half of the operations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RMSNorm

from acestep.devices.cpu import CpuDevice
from acestep.lm.heads import MakeHeads, Rotation, apart, for_together, rms_normed, together
from acestep.lm.products import Products


class Launches(TorchDispatchMode):
    """Counts the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not func.is_view and func.overloadpacket is not torch.ops.aten.empty_like
        return func(*args, **(kwargs or {}))


def _layer(dtype: torch.dtype, heads: int, groups: int, dim: int) -> Qwen3Attention:
    config = Qwen3Config(
        hidden_size=48, head_dim=dim, num_attention_heads=heads * groups, num_key_value_heads=heads, num_hidden_layers=1
    )
    layer = Qwen3Attention(config, 0).to(dtype).requires_grad_(False)
    for norm in (layer.q_norm, layer.k_norm):
        norm.weight.copy_(torch.randn(dim))
    return layer


def _rotation(rows: int, dim: int, dtype: torch.dtype) -> Rotation:
    angles = (torch.randn(rows, dim // 2) * 100).repeat(1, 2)
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


def _made(
    heads: MakeHeads, layer: Qwen3Attention, normed: torch.Tensor, rotation: Rotation
) -> tuple[torch.Tensor, ...]:
    return heads(layer, Products(CpuDevice()).layer, normed, rotation)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    rows=st.integers(1, 16),
    heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    dim=st.sampled_from([4, 16, 32]),
    scale=st.sampled_from([1e-3, 1.0, 300.0]),
)
def test_both_give_the_same_bits(
    seed: int, dtype: torch.dtype, rows: int, heads: int, groups: int, dim: int, scale: float
) -> None:
    torch.manual_seed(seed)
    layer, rotation = _layer(dtype, heads, groups, dim), _rotation(rows, dim, dtype)
    normed = (torch.randn(rows, 48) * scale).to(dtype)
    usual = _made(apart, layer, normed, rotation)
    fewer = _made(together, layer, normed, for_together(rotation))
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


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.6), (torch.bfloat16, 0.5)])
def test_together_launches_about_half(dtype: torch.dtype, share: float) -> None:
    layer, rotation = _layer(dtype, 2, 2, 16), _rotation(3, 16, dtype)
    normed, turns = torch.randn(3, 48).to(dtype), for_together(rotation)
    with Launches() as usual:
        _made(apart, layer, normed, rotation)
    with Launches() as fewer:
        _made(together, layer, normed, turns)
    assert fewer.count <= share * usual.count
