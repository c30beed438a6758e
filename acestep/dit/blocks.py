"""Forwards of the library's layers that process a few rows at a time, so that activations stay small.

Only the order of work differs from diffusers: every row gets the same arithmetic. The modules and their weights are the
library's own (`AceStepAttention`, `AceStepMLP`, `RMSNorm`).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.checkpoints.libraries import (
    AceStepAttention,
    AceStepAttentionPooler,
    AceStepAudioTokenDetokenizer,
    AceStepEncoderLayer,
    AceStepLyricEncoder,
    AceStepMLP,
    AceStepTimbreEncoder,
    AceStepTransformerBlock,
)
from acestep.dit.attention import Kernels, rotary_table, rotate
from acestep.limits.workspace import CHUNK_ROWS
from acestep.units import ceil_div

Heads = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

UseBlock = Callable[[nn.Module], AbstractContextManager[None]]
"""A context in which a layer is on the device."""

Stack: TypeAlias = AceStepAttentionPooler | AceStepAudioTokenDetokenizer | AceStepLyricEncoder | AceStepTimbreEncoder
"""Encoder layers followed by a norm."""


def row_pieces(batch: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield (songs, rows) pieces of even size.

    Each is contiguous: whole songs of at most `CHUNK_ROWS` rows in total, or a part of one song.
    """
    if length <= CHUNK_ROWS:
        songs = CHUNK_ROWS // length
        for first in range(0, batch, songs):
            yield slice(first, min(batch, first + songs)), slice(0, length)
    else:
        step = ceil_div(length, ceil_div(length, CHUNK_ROWS))
        for song in range(batch):
            for start in range(0, length, step):
                yield slice(song, song + 1), slice(start, min(length, start + step))


def _flat(tensor: Tensor, songs: slice, rows: slice) -> Tensor:
    """A piece of [batch, length, ...] as [rows, ...] of the same memory."""
    piece = tensor[songs, rows]
    return piece.view(-1, *piece.shape[2:])


def project_heads(
    attention: AceStepAttention, normed: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [rows, heads, head_dim] of normalised rows, with rotary embedding on the first two."""
    heads = (-1, attention.head_dim)
    query = rotate(attention.norm_q(attention.to_q(normed).unflatten(-1, heads)), cos, sin)
    key = rotate(attention.norm_k(attention.to_k(normed).unflatten(-1, heads)), cos, sin)
    return query, key, attention.to_v(normed).unflatten(-1, heads)


def self_attend(
    attention: AceStepAttention, hidden: Tensor, heads: Heads, rotary: tuple[Tensor, Tensor], kernels: Kernels
) -> Tensor:
    """Self-attention over `hidden` [batch, length, width] without the output projection: [batch, length, heads, dim].

    `heads` computes queries, keys and values of some rows from the matching rows of the rotary table.
    """
    batch, length, width = hidden.shape
    if batch * length <= CHUNK_ROWS:
        cos, sin = (table.repeat(batch, 1) for table in rotary)
        query, key, value = (
            made.view(batch, length, *made.shape[1:]) for made in heads(hidden.view(-1, width), cos, sin)
        )
    else:
        counts = (attention.heads, attention.kv_heads, attention.kv_heads)
        # The rows of each head are contiguous: the kernels read them a sixth faster than interleaved rows.
        query, key, value = (
            hidden.new_empty(batch, count, length, attention.head_dim).transpose(1, 2) for count in counts
        )
        for songs, rows in row_pieces(batch, length):
            cos, sin = (table[rows].repeat(songs.stop - songs.start, 1) for table in rotary)
            made = heads(_flat(hidden, songs, rows), cos, sin)
            for whole, part in zip((query, key, value), made, strict=True):
                whole[songs, rows] = part.view(-1, rows.stop - rows.start, *part.shape[1:])
            # All temporaries are freed: one left alive would occupy a segment, of up to 90 MiB, that attention needs
            # whole.
            del made, part, whole, cos, sin
    if attention.sliding_window and length > attention.sliding_window + 1:
        return kernels.banded_(query, key, value, attention.sliding_window)
    return kernels.full(query, key, value)


def cross_keys(attention: AceStepAttention, condition: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [batch, tokens, kv_heads, head_dim] of a condition [batch, tokens, width]."""
    heads = (-1, attention.head_dim)
    key = attention.norm_k(attention.to_k(condition).unflatten(-1, heads))
    return key, attention.to_v(condition).unflatten(-1, heads)


def project_out(attention: AceStepAttention, attended: Tensor) -> Tensor:
    """The output projection of attended rows [rows, heads, head_dim]."""
    return attention.to_out[0](attended.flatten(1, 2))  # type: ignore[no-any-return]


def feed(mlp: AceStepMLP, rows: Tensor) -> Tensor:
    """The MLP of rows [rows, width], in place where the library's forward allocates new tensors.

    The result has the type of the last projection, which may be wider than that of the rows.
    """
    gate = F.silu(mlp.gate_proj(rows), inplace=True)
    fed: Tensor = mlp.down_proj(gate.mul_(mlp.up_proj(rows)).to(mlp.down_proj.weight.dtype))
    return fed


class RowFunctions(NamedTuple):
    """The row-wise functions of a DiT block between its attention kernels; `compiled.py` has compiled versions."""

    heads: Callable[..., tuple[Tensor, Tensor, Tensor]]
    mix_: Callable[..., Tensor]
    cross_query: Callable[..., Tensor]
    finish_: Callable[..., Tensor]


def _heads(
    layer: AceStepTransformerBlock, rows: Tensor, shift: Tensor, scale: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return project_heads(layer.self_attn, layer.self_attn_norm(rows).mul_(1 + scale).add_(shift), cos, sin)


def _mix_(layer: AceStepTransformerBlock, rows: Tensor, attended: Tensor, gate: Tensor) -> Tensor:
    return rows.add_(project_out(layer.self_attn, attended).mul_(gate))


def _cross_query(layer: AceStepTransformerBlock, rows: Tensor) -> Tensor:
    attention = layer.cross_attn
    query: Tensor = attention.norm_q(
        attention.to_q(layer.cross_attn_norm(rows)).unflatten(-1, (-1, attention.head_dim))
    )
    return query


def _finish_(
    layer: AceStepTransformerBlock, rows: Tensor, attended: Tensor, shift: Tensor, scale: Tensor, gate: Tensor
) -> Tensor:
    rows.add_(project_out(layer.cross_attn, attended))
    return rows.add_(feed(layer.mlp, layer.mlp_norm(rows).mul_(1 + scale).add_(shift)).mul_(gate))


EAGER = RowFunctions(_heads, _mix_, _cross_query, _finish_)


class DenoiserBlock(nn.Module):
    """One DiT block over the library's weights; adds to `hidden` in place and returns it."""

    def __init__(self, layer: AceStepTransformerBlock, functions: RowFunctions = EAGER) -> None:
        super().__init__()
        self.layer: AceStepTransformerBlock = layer
        self.functions = functions

    def forward(
        self, hidden: Tensor, condition: Tensor, timestep: Tensor, rotary: tuple[Tensor, Tensor], kernels: Kernels
    ) -> Tensor:
        """`hidden` [batch, length, width], `condition` [1 or batch, tokens, width], `timestep` [1, 6, width]."""
        layer, do = self.layer, self.functions
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (layer.scale_shift_table + timestep).unbind(1)
        batch, length, _ = hidden.shape

        def heads(rows: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return do.heads(layer, rows, shift, scale, cos, sin)

        attended = self_attend(layer.self_attn, hidden, heads, rotary, kernels)
        for songs, rows in row_pieces(batch, length):
            do.mix_(layer, _flat(hidden, songs, rows), attended[songs, rows].flatten(0, 1), gate)
        del attended

        key, value = cross_keys(layer.cross_attn, condition)
        if key.shape[0] != batch:
            key, value = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
        for songs, rows in row_pieces(batch, length):
            part = _flat(hidden, songs, rows)
            query = do.cross_query(layer, part)
            query = query.view(songs.stop - songs.start, -1, *query.shape[1:])
            crossed = kernels.full(query, key[songs], value[songs])
            del query
            do.finish_(layer, part, crossed.flatten(0, 1), mlp_shift, mlp_scale, mlp_gate)
        return hidden


class EncoderBlock(nn.Module):
    """One lyric, timbre or tokenizer encoder layer over the library's weights; adds to `hidden` in place.

    Where the last projection of its MLP is of a wider type, the result is a new tensor of that type.
    """

    def __init__(self, layer: AceStepEncoderLayer) -> None:
        super().__init__()
        self.layer: AceStepEncoderLayer = layer

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], kernels: Kernels) -> Tensor:
        """`hidden` [batch, length, width]."""
        layer = self.layer
        batch, length, _ = hidden.shape

        def heads(rows: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return project_heads(layer.self_attn, layer.input_layernorm(rows), cos, sin)

        attended = self_attend(layer.self_attn, hidden, heads, rotary, kernels)
        wide = layer.mlp.down_proj.weight.dtype
        result = hidden if wide is hidden.dtype else torch.empty_like(hidden, dtype=wide)
        for songs, rows in row_pieces(batch, length):
            part = _flat(hidden, songs, rows)
            part.add_(project_out(layer.self_attn, attended[songs, rows].flatten(0, 1)))
            into = _flat(result, songs, rows)
            if result is not hidden:
                into.copy_(part)
            into.add_(feed(layer.mlp, layer.post_attention_layernorm(part)))
        return result


def run_stack(stack: Stack, hidden: Tensor, kernels: Kernels, use_block: UseBlock) -> Tensor:
    """Run the layers and the norm of a stack over `hidden` [batch, length, width], which the layers overwrite."""
    dtype = hidden.dtype
    rotary = rotary_table(hidden.shape[1], stack.head_dim, stack.rope_theta, hidden)
    for layer in stack.layers:
        with use_block(layer):
            hidden = EncoderBlock(layer)(hidden, rotary, kernels)
    normed: Tensor = stack.norm(hidden).to(dtype)
    return normed
