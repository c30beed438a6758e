"""Attention without score matrices: sliding windows as blocks over their band, full layers through fused kernels.

Tensors are [batch, length, heads, head_dim] throughout; keys and values may have fewer heads (grouped queries).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_ROWS = 256
"""Query rows of one banded block: small enough to waste little of the band, large enough to keep kernels busy."""


class Kernels:
    """How this device wants attention called, and the band masks of the current forward.

    `grouped` says whether the fused kernel takes grouped queries as they are. The flash kernel does (bf16 or fp16
    on compute capability 8.0 or newer); every other kernel falls back to materialised scores then, so keys and
    values are expanded to all heads for them.
    """

    def __init__(self, *, grouped: bool) -> None:
        self.grouped = grouped
        self._masks: dict[tuple[int, int, int], Tensor] = {}

    def full(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Unmasked attention of every query over every key."""
        repeats = query.shape[2] // key.shape[2]
        if repeats > 1 and not self.grouped:
            key, value = key.repeat_interleave(repeats, 2), value.repeat_interleave(repeats, 2)
        return F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            enable_gqa=repeats > 1 and self.grouped,
        ).transpose(1, 2)

    def banded_(self, query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
        """Attention of query i over keys with ``|i - j| <= window``; the result takes the place of `query`.

        Equal to a dense [length, length] mask, of which at most ``BLOCK_ROWS x (BLOCK_ROWS + 2 * window)`` exists.
        """
        length, repeats = query.shape[1], query.shape[2] // key.shape[2]
        for start in range(0, length, BLOCK_ROWS):
            end = min(length, start + BLOCK_ROWS)
            first, last = max(0, start - window), min(length, end + window)
            k, v = key[:, first:last], value[:, first:last]
            if repeats > 1:
                k, v = k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
            rows = query[:, start:end]
            rows.copy_(
                F.scaled_dot_product_attention(
                    rows.transpose(1, 2),
                    k.transpose(1, 2),
                    v.transpose(1, 2),
                    attn_mask=self._band(query, start - first, end - start, last - first, window),
                ).transpose(1, 2)
            )
        return query

    def _band(self, like: Tensor, offset: int, rows: int, columns: int, window: int) -> Tensor:
        """Additive mask [rows, columns] of a block whose first query is column `offset`; interior blocks share one."""
        key = (offset, rows, columns)
        if key not in self._masks:
            i = torch.arange(offset, offset + rows, device=like.device)[:, None]
            j = torch.arange(columns, device=like.device)[None]
            mask = torch.zeros(rows, columns, dtype=like.dtype, device=like.device)
            self._masks[key] = mask.masked_fill_((i - j).abs() > window, torch.finfo(like.dtype).min)
        return self._masks[key]


def rotary_table(length: int, head_dim: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head_dim] of Qwen3's rotary layout (both halves alike), in the dtype of `like`."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=like.device) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=like.device), 1.0 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x` [..., rows, heads, head_dim] by the rows of a `rotary_table`, computed in float32."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x.float() * cos[:, None] + turned.float() * sin[:, None]).to(x.dtype)
