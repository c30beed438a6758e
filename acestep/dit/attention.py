"""Attention without score matrices: sliding windows in blocks along the band, full layers with fused kernels.

Tensors are [batch, length, heads, head_dim]; keys and values may have fewer heads (grouped queries).
"""

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from acestep.limits.workspace import BLOCK_ROWS


class FlashAttention(Protocol):
    """`flash_attn.flash_attn_func`, with the arguments that are used here."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, window_size: tuple[int, int]) -> Tensor:
        """Attention of [batch, rows, heads, dim]; query i sees keys from ``i - left`` to ``i + right``, -1 for all."""
        ...


@cache
def flash_attention() -> FlashAttention | None:
    """Return the package's function; None if it is not installed or was built for another PyTorch."""
    if find_spec("flash_attn") is None:
        return None
    try:
        from flash_attn import flash_attn_func
    except (ImportError, OSError, AttributeError) as error:
        warnings.warn(
            f"flash-attn is installed but cannot be loaded ({error}); PyTorch's own attention is used. Install the"
            " flash-attn that was built for this PyTorch, or remove it.",
            stacklevel=2,
        )
        return None
    found: FlashAttention = flash_attn_func
    return found


SCORE_ROWS = 256
"""Query rows (over all songs) in one block if scores may be materialised: 123 MiB of scores in fp32 at 600 s."""


class Kernels:
    """The way in which this device computes attention, and the band masks of the current forward.

    `grouped` says whether the fused kernel takes grouped queries directly. If not, PyTorch would fall back to
    materialised scores, so keys and values are expanded to all heads. With `in_blocks` a few queries are computed at a
    time, for devices where a fused kernel is not certain even then. `flash` is flash-attn's function: it supports
    grouped queries and windows itself, so the other options have no effect with it.
    """

    def __init__(self, *, grouped: bool, in_blocks: bool = False, flash: FlashAttention | None = None) -> None:
        self.grouped = grouped
        self.in_blocks = in_blocks
        self.flash = flash
        self._masks: dict[tuple[int, int, int], Tensor] = {}

    def full(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Unmasked attention of every query over every key."""
        if self.flash is not None:
            return self.flash(query, key, value, window_size=(-1, -1))
        repeats = query.shape[2] // key.shape[2]
        if repeats > 1 and not self.grouped:
            key, value = key.repeat_interleave(repeats, 2), value.repeat_interleave(repeats, 2)
        grouped = repeats > 1 and self.grouped
        if not self.in_blocks:
            return _attend(query, key, value, grouped=grouped)
        result = torch.empty_like(query)
        step = max(1, SCORE_ROWS // query.shape[0])
        for start in range(0, query.shape[1], step):
            rows = slice(start, start + step)
            result[:, rows] = _attend(query[:, rows], key, value, grouped=grouped)
        return result

    def banded_(self, query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
        """Attention of query i over keys with ``|i - j| <= window``; the result may be stored in `query`.

        Equal to a dense [length, length] mask, of which at most ``BLOCK_ROWS x (BLOCK_ROWS + 2 * window)`` exist at a
        time.
        """
        if self.flash is not None:
            return self.flash(query, key, value, window_size=(window, window))
        length, repeats = query.shape[1], query.shape[2] // key.shape[2]
        for start in range(0, length, BLOCK_ROWS):
            end = min(length, start + BLOCK_ROWS)
            first, last = max(0, start - window), min(length, end + window)
            k, v = key[:, first:last], value[:, first:last]
            if repeats > 1:
                k, v = k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
            rows = query[:, start:end]
            mask = self._band(query, start - first, end - start, last - first, window)
            rows.copy_(_attend(rows, k, v, mask=mask))
        return query

    def _band(self, like: Tensor, offset: int, rows: int, columns: int, window: int) -> Tensor:
        """Additive mask [rows, columns] of a block whose first query is column `offset`.

        Interior blocks share one mask.
        """
        key = (offset, rows, columns)
        if key not in self._masks:
            i = torch.arange(offset, offset + rows, device=like.device)[:, None]
            j = torch.arange(columns, device=like.device)[None]
            mask = torch.zeros(rows, columns, dtype=like.dtype, device=like.device)
            self._masks[key] = mask.masked_fill_((i - j).abs() > window, torch.finfo(like.dtype).min)
        return self._masks[key]


def _attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, grouped: bool = False) -> Tensor:
    return F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask, enable_gqa=grouped
    ).transpose(1, 2)


def rotary_table(length: int, head_dim: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head_dim] of Qwen3's rotary layout (both halves alike), in the dtype of `like`."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=like.device) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=like.device), 1.0 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x` [..., rows, heads, head_dim] by the rows of a `rotary_table`, computed in float32."""
    first, second = x.chunk(2, dim=-1)
    rotated = x.float() * cos[:, None]
    rotated += torch.cat([-second, first], dim=-1).float().mul_(sin[:, None])
    return rotated.to(x.dtype)
