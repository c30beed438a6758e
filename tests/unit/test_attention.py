"""Banded attention is dense attention with a band mask; expanded keys are grouped keys."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.models.attention import BLOCK_ROWS, Kernels, rotary_table, rotate
from acestep.models.libraries import AceStepTransformer1DModel


def _dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int) -> torch.Tensor:
    i, j = torch.arange(query.shape[1])[:, None], torch.arange(key.shape[1])[None]
    repeats = query.shape[2] // key.shape[2]
    return F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.repeat_interleave(repeats, 2).transpose(1, 2),
        value.repeat_interleave(repeats, 2).transpose(1, 2),
        attn_mask=(i - j).abs() <= window,
    ).transpose(1, 2)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 3 * BLOCK_ROWS + 7),
    window=st.integers(1, 150),
    batch=st.integers(1, 2),
    repeats=st.sampled_from([1, 2, 4]),
)
def test_the_band_equals_the_dense_mask_at_any_length(length: int, window: int, batch: int, repeats: int) -> None:
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(batch, length, 4, 8, generator=generator)
    key, value = torch.randn(2, batch, length, 4 // repeats, 8, generator=generator)
    expected = _dense(query, key, value, window)
    for grouped in (True, False):
        kernels = Kernels(grouped=grouped)
        for _ in range(2):  # the second call finds its masks made
            assert torch.allclose(kernels.banded_(query.clone(), key, value, window), expected, atol=1e-5)


def test_no_mask_is_larger_than_one_block_s_band() -> None:
    kernels = Kernels(grouped=False)
    query, key, value = torch.randn(3, 1, 4_000, 2, 8)
    kernels.banded_(query, key, value, 128)
    assert max(mask.numel() for mask in kernels._masks.values()) <= BLOCK_ROWS * (BLOCK_ROWS + 2 * 128)
    assert len(kernels._masks) <= 3, "interior blocks share one mask"


@pytest.mark.parametrize("repeats", [1, 2])
def test_grouped_and_expanded_keys_agree(repeats: int) -> None:
    query = torch.randn(2, 33, 4, 8)
    key, value = torch.randn(2, 2, 50, 4 // repeats, 8)
    both = [Kernels(grouped=grouped).full(query, key, value) for grouped in (True, False)]
    assert torch.allclose(*both, atol=1e-6)


def test_rotary_embedding_is_the_library_s() -> None:
    from diffusers.models.embeddings import apply_rotary_emb
    from diffusers.models.transformers.ace_step_transformer import _ace_step_rotary_freqs

    x = torch.randn(2, 40, 3, 16)
    table = _ace_step_rotary_freqs(40, 16, 1e6, x.device, x.dtype)
    ours = rotary_table(40, 16, 1e6, x)
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(ours, table, strict=True))
    theirs = apply_rotary_emb(x, table, use_real=True, use_real_unbind_dim=-2, sequence_dim=1)
    assert torch.allclose(rotate(x, *ours), theirs, atol=1e-6)


def test_layers_alternate_as_the_engine_expects() -> None:
    with torch.device("meta"):
        model = AceStepTransformer1DModel(num_hidden_layers=4)
    assert [bool(layer.self_attn.sliding_window) for layer in model.layers] == [True, False, True, False]
