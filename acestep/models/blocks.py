"""Forwards of the library's layers that touch a few rows at a time, so that activations stay small.

Only the order of work differs from diffusers: every row sees the same arithmetic. The modules and their weights are
the library's own (`AceStepAttention`, `AceStepMLP`, `RMSNorm`).
"""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from acestep.models.attention import Kernels, rotate
from acestep.models.libraries import AceStepAttention, AceStepEncoderLayer, AceStepTransformerBlock

CHUNK_ROWS = 2_048
"""Rows (over all songs of a pass) that go through projections and MLPs at once; below the attention peak at 600 s."""

Rows = Callable[[Tensor], Tensor]


def row_slices(batch: int, length: int) -> Iterator[slice]:
    """Slices along the sequence that hold about `CHUNK_ROWS` rows over the whole batch."""
    step = max(1, CHUNK_ROWS // batch)
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))


def self_attend(
    attention: AceStepAttention, hidden: Tensor, prepare: Rows, rotary: tuple[Tensor, Tensor], kernels: Kernels
) -> Tensor:
    """Self-attention over `hidden` [batch, length, width] up to the output projection: [batch, length, heads, dim].

    `prepare` normalises a slice of rows before they are projected.
    """
    batch, length, _ = hidden.shape
    shape = (attention.heads, attention.kv_heads, attention.kv_heads)
    query, key, value = (hidden.new_empty(batch, length, heads, attention.head_dim) for heads in shape)
    cos, sin = rotary
    for rows in row_slices(batch, length):
        normed = prepare(hidden[:, rows])
        heads = (-1, attention.head_dim)
        query[:, rows] = rotate(attention.norm_q(attention.to_q(normed).unflatten(-1, heads)), cos[rows], sin[rows])
        key[:, rows] = rotate(attention.norm_k(attention.to_k(normed).unflatten(-1, heads)), cos[rows], sin[rows])
        value[:, rows] = attention.to_v(normed).unflatten(-1, heads)
    if attention.sliding_window and length > attention.sliding_window + 1:
        return kernels.banded_(query, key, value, attention.sliding_window)
    return kernels.full(query, key, value)


def cross_attend(attention: AceStepAttention, normed: Tensor, key: Tensor, value: Tensor, kernels: Kernels) -> Tensor:
    """Cross-attention of some rows [batch, rows, width] over projected keys and values, output projection included."""
    query = attention.norm_q(attention.to_q(normed).unflatten(-1, (-1, attention.head_dim)))
    return project_out(attention, kernels.full(query, key, value))


def cross_keys(attention: AceStepAttention, condition: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [batch, tokens, kv_heads, head_dim] of a condition [batch, tokens, width]."""
    heads = (-1, attention.head_dim)
    key = attention.norm_k(attention.to_k(condition).unflatten(-1, heads))
    return key, attention.to_v(condition).unflatten(-1, heads)


def project_out(attention: AceStepAttention, attended: Tensor) -> Tensor:
    """The output projection of attended rows [batch, rows, heads, head_dim]."""
    return attention.to_out[0](attended.flatten(2, 3))  # type: ignore[no-any-return]


class DenoiserBlock(nn.Module):
    """One DiT block over the library's weights; adds to `hidden` in place and returns it."""

    def __init__(self, layer: AceStepTransformerBlock) -> None:
        super().__init__()
        self.layer: AceStepTransformerBlock = layer

    def forward(
        self, hidden: Tensor, condition: Tensor, timestep: Tensor, rotary: tuple[Tensor, Tensor], kernels: Kernels
    ) -> Tensor:
        """`hidden` [batch, length, width], `condition` [1 or batch, tokens, width], `timestep` [1, 6, width]."""
        layer = self.layer
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (layer.scale_shift_table + timestep).chunk(6, dim=1)
        batch, length, _ = hidden.shape

        attended = self_attend(
            layer.self_attn, hidden, lambda rows: layer.self_attn_norm(rows) * (1 + scale) + shift, rotary, kernels
        )
        for rows in row_slices(batch, length):
            hidden[:, rows].add_(project_out(layer.self_attn, attended[:, rows]).mul_(gate))
        del attended

        key, value = cross_keys(layer.cross_attn, condition)
        if key.shape[0] != batch:
            key, value = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
        for rows in row_slices(batch, length):
            part = hidden[:, rows]
            part.add_(cross_attend(layer.cross_attn, layer.cross_attn_norm(part), key, value, kernels))
            part.add_(layer.mlp(layer.mlp_norm(part) * (1 + mlp_scale) + mlp_shift).mul_(mlp_gate))
        return hidden


class EncoderBlock(nn.Module):
    """One lyric, timbre or tokenizer encoder layer over the library's weights; adds to `hidden` in place."""

    def __init__(self, layer: AceStepEncoderLayer) -> None:
        super().__init__()
        self.layer: AceStepEncoderLayer = layer

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], kernels: Kernels) -> Tensor:
        """`hidden` [batch, length, width]."""
        layer = self.layer
        batch, length, _ = hidden.shape
        attended = self_attend(layer.self_attn, hidden, layer.input_layernorm, rotary, kernels)
        for rows in row_slices(batch, length):
            part = hidden[:, rows]
            part.add_(project_out(layer.self_attn, attended[:, rows]))
            part.add_(layer.mlp(layer.post_attention_layernorm(part)))
        return hidden
