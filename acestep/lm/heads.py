"""The norms of a layer, and its queries, keys and values: projected, and the first two normed and rotated.

`apart` is the library's arithmetic, one projection after the other. `together` gives the same numbers with half of the
operations: for a few rows, launching an operation takes longer than computing it. It holds all projections at once, two
of them in float32, which for the many rows of a prompt would take memory. So does `gated_together`.

The numbers have the same bits on the CPU. On a card one product with several weights may be rounded differently from
one with each of them, because the matrix library chooses its kernel by the size of the product.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acestep.dit.attention import rotate
from acestep.lm.layer_products import LayerProducts


class Rotation(NamedTuple):
    """What turns heads to the places of their rows, in the form that `apart` or `together` takes."""

    cos: Tensor
    sin: Tensor


MakeHeads = Callable[[Any, LayerProducts, Tensor, Rotation], tuple[Tensor, Tensor, Tensor]]
"""Returns queries [rows, heads, head_dim], and keys and values [rows, kv_heads, head_dim], of normed rows [rows, width]
of the attention of a layer.
"""

Gated = Callable[[Any, LayerProducts, Tensor], Tensor]
"""Returns the gated values [rows, inner width] of normed rows [rows, width] in the MLP of a layer."""


def apart(attention: Any, products: LayerProducts, rows: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values; `rotation` has `cos` and `sin` [rows, head_dim]."""
    shape, made = (len(rows), -1, attention.head_dim), products.heads_in_turn(rows)
    query = rotate(attention.q_norm(next(made).view(shape)), *rotation)
    key = rotate(attention.k_norm(next(made).view(shape)), *rotation)
    return query, key, next(made).view(shape)


def gated_apart(mlp: Any, products: LayerProducts, rows: Tensor) -> Tensor:
    """Return the gated values; the first product is freed before the second is made."""
    made = products.gates_in_turn(rows)
    gate: Tensor = mlp.act_fn(next(made))
    return gate * next(made)


def for_together(rotation: Rotation) -> Rotation:
    """Return the rotation of `apart` as `together` takes it: [rows, 1, head_dim], in float32 and signed."""
    cos, sin = rotation.cos[:, None].float(), rotation.sin[:, None].float()
    first, second = sin.chunk(2, dim=-1)
    return Rotation(cos, torch.cat([-first, second], dim=-1))


def together(
    attention: Any, products: LayerProducts, rows: Tensor, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, which share one tensor; `rotation` is made by `for_together`."""
    dim = attention.head_dim
    heads, kv_heads = attention.q_proj.out_features // dim, attention.k_proj.out_features // dim
    projected = products.heads(rows).view(len(rows), -1, dim)
    both, values = projected[:, : heads + kv_heads], projected[:, heads + kv_heads :]
    # Results go into a tensor of the narrower type, which rounds them as a conversion would.
    _scaled(both, attention.q_norm.variance_epsilon, into=both)
    both[:, :heads].mul_(attention.q_norm.weight)
    both[:, heads:].mul_(attention.k_norm.weight)
    # The product of a 16-bit number and one of 32 bits is computed in 32 bits.
    turned, other = both * rotation.cos, both.roll(dim // 2, -1) * rotation.sin
    torch.add(turned, other, out=both)
    return both[:, :heads], both[:, heads:], values


def gated_together(mlp: Any, products: LayerProducts, rows: Tensor) -> Tensor:
    """Return the gated values; both products can share a tensor."""
    gate, up = products.gates(rows)
    gated: Tensor = mlp.act_fn(gate) * up
    return gated


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
    """How a layer norms rows, and what it makes of them; on the CPU the bits of the numbers are the same."""

    norm: Callable[[Any, Tensor], Tensor]
    heads: MakeHeads
    gated: Gated


MANY = Arithmetic(_by_the_library, apart, gated_apart)
"""For the many rows of a prompt."""

FEW = Arithmetic(rms_normed, together, gated_together)
"""For the few rows of a step, with the fewest operations."""
