"""The norms of a layer, and its queries and keys: projected, normed, and rotated to their places in the sequence.

`apart` is the library's arithmetic, one projection after the other. `together` gives the same numbers, bit for bit,
with half of the operations: for a few rows, launching an operation takes longer than computing it. It holds both
projections at once in float32, which for the many rows of a prompt would take memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from acestep.dit.attention import rotate

LayerProduct = Callable[[nn.Module, Tensor], Tensor]
"""Returns what a linear layer makes of rows."""


class Rotation(NamedTuple):
    """What turns heads to the places of their rows, in the form that `apart` or `together` takes."""

    cos: Tensor
    sin: Tensor


MakeHeads = Callable[[Any, LayerProduct, Tensor, Rotation], tuple[Tensor, Tensor]]
"""Returns queries [rows, heads, head_dim] and keys [rows, kv_heads, head_dim] of normed rows [rows, width]."""


def apart(attention: Any, product: LayerProduct, rows: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Return queries and keys; `rotation` has `cos` and `sin` [rows, head_dim]."""
    shape = (len(rows), -1, attention.head_dim)
    query = rotate(attention.q_norm(product(attention.q_proj, rows).view(shape)), *rotation)
    key = rotate(attention.k_norm(product(attention.k_proj, rows).view(shape)), *rotation)
    return query, key


def for_together(rotation: Rotation) -> Rotation:
    """Return the rotation of `apart` as `together` takes it: [rows, 1, head_dim], in float32 and signed."""
    cos, sin = rotation.cos[:, None].float(), rotation.sin[:, None].float()
    first, second = sin.chunk(2, dim=-1)
    return Rotation(cos, torch.cat([-first, second], dim=-1))


def together(attention: Any, product: LayerProduct, rows: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Return queries and keys, which share one tensor; `rotation` is made by `for_together`."""
    projected = [product(attention.q_proj, rows), product(attention.k_proj, rows)]
    dim = attention.head_dim
    both = torch.cat(projected, dim=-1).view(len(rows), -1, dim)
    heads = projected[0].shape[-1] // dim
    # Results go into a tensor of the narrower type, which rounds them as a conversion would.
    _scaled(both, attention.q_norm.variance_epsilon, into=both)
    both[:, :heads].mul_(attention.q_norm.weight)
    both[:, heads:].mul_(attention.k_norm.weight)
    # The product of a 16-bit number and one of 32 bits is computed in 32 bits.
    turned, other = both * rotation.cos, both.roll(dim // 2, -1) * rotation.sin
    torch.add(turned, other, out=both)
    return both[:, :heads], both[:, heads:]


def rms_normed(norm: Any, rows: Tensor) -> Tensor:
    """Return what the library's `norm` makes of `rows` [rows, width], bit for bit, with one operation less."""
    return _scaled(rows, norm.variance_epsilon, into=torch.empty_like(rows)).mul_(norm.weight)


def _scaled(rows: Tensor, epsilon: float, *, into: Tensor) -> Tensor:
    """Write `rows` divided by their root mean squares, which are computed in float32, into a tensor of their shape."""
    wide = rows.float()
    return torch.mul(wide, torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon), out=into)


def _by_the_library(norm: Any, rows: Tensor) -> Tensor:
    result: Tensor = norm(rows)
    return result


class Arithmetic(NamedTuple):
    """How a layer norms rows and makes their queries and keys; the numbers are the same, bit for bit."""

    norm: Callable[[Any, Tensor], Tensor]
    heads: MakeHeads


MANY = Arithmetic(_by_the_library, apart)
"""For the many rows of a prompt."""

FEW = Arithmetic(rms_normed, together)
"""For the few rows of a step, with the fewest operations."""
