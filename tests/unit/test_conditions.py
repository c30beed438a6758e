"""The timbre of a reference, against the encoder written out by hand: XL pools a learned token, the others a frame."""

import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.build import TINY_LATENT, build
from acestep.dit.attention import Kernels
from acestep.dit.conditions import ConditionEncoder
from acestep.knobs import Variant

FRAMES = 301


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * norm.weight


def _turned(x: Tensor, theta: float) -> Tensor:
    """Rotary positions, pair by pair: element k and element k + half turn together."""
    half = x.shape[-1] // 2
    out = torch.empty_like(x)
    for k in range(half):
        angle = torch.arange(x.shape[1]) * theta ** (-k / half)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        out[..., k] = x[..., k] * cos - x[..., k + half] * sin
        out[..., k + half] = x[..., k + half] * cos + x[..., k] * sin
    return out


def _by_hand(encoder: nn.Module, frames: Tensor, *, with_token: bool) -> Tensor:
    """The state [1, width] that the timbre encoder pools, with dense attention and no kernel."""
    x = encoder.embed_tokens(frames)
    if with_token:
        x = torch.cat([encoder.special_token, x], dim=1)
    distance = (torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])).abs()
    for index, layer in enumerate(encoder.layers):
        attention, width = layer.self_attn, encoder.head_dim
        normed = _norm(x, layer.input_layernorm)
        query, key, value = (
            linear(normed).unflatten(-1, (-1, width)) for linear in (attention.to_q, attention.to_k, attention.to_v)
        )
        query = _turned(_norm(query, attention.norm_q), encoder.rope_theta)
        key = _turned(_norm(key, attention.norm_k), encoder.rope_theta)
        heads = []
        for head in range(query.shape[2]):
            shared = head // (query.shape[2] // key.shape[2])
            scores = query[:, :, head] @ key[:, :, shared].transpose(1, 2) / width**0.5
            if index % 2 == 0:
                scores = scores.masked_fill(distance > encoder.sliding_window, float("-inf"))
            heads.append(scores.softmax(-1) @ value[:, :, shared])
        x = x + attention.to_out[0](torch.cat(heads, dim=-1))
        normed, mlp = _norm(x, layer.post_attention_layernorm), layer.mlp
        gate = mlp.gate_proj(normed)
        x = x + mlp.down_proj(gate * gate.sigmoid() * mlp.up_proj(normed))
    pooled: Tensor = _norm(x, encoder.norm)[:, 0]
    return pooled


@pytest.mark.parametrize("variant", list(Variant))
@torch.no_grad()
def test_only_xl_pools_the_learned_token(variant: Variant) -> None:
    parts = build("tiny", variant, dtype=torch.float32)
    draw = torch.Generator().manual_seed(3)
    timbre = torch.randn(1, FRAMES, TINY_LATENT, generator=draw)
    lyrics = torch.randn(1, 5, parts.text_encoder.config.hidden_size, generator=draw)
    ours = ConditionEncoder(parts.condition_encoder, Kernels(grouped=True), prepend_timbre_token=variant.is_xl)
    state = ours.shared(lyrics, timbre)[:, -1]
    encoder = parts.condition_encoder.timbre_encoder
    right, wrong = (_by_hand(encoder, timbre, with_token=token) for token in (variant.is_xl, not variant.is_xl))
    assert torch.allclose(state, right, atol=1e-5)
    assert (state - wrong).abs().max() > 0.1
    if not variant.is_xl:
        library, _ = encoder(timbre, torch.zeros(1, dtype=torch.long))
        assert torch.allclose(right, library[0], atol=1e-5)
