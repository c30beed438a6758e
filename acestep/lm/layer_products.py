"""The products of one decoder layer; those with the same few rows are one where their weights follow each other.

For a few rows, launching a product takes longer than computing it. On a card the weights of a language model share one
allocation (`acestep.memory.placement`), so the weight of such a product is a view and takes no memory. On a CPU they
are packed together (`acestep.lm.packed`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acestep.lm.packed import packed_together
from acestep.lm.products import Products, is_plain
from acestep.memory.packed import packed_product


def in_a_row(weights: Sequence[Tensor]) -> Tensor | None:
    """Return weights [out, in] as one [sum of out, in] over the same memory.

    None unless they are plain, of one width, and follow each other without a gap.
    """
    first = weights[0]
    if not is_plain(first):
        # A weight in another format may have no place in memory that can be asked for.
        return None
    width = first.shape[1]
    follows = first.storage_offset()
    for weight in weights:
        alike = is_plain(weight) and weight.dtype is first.dtype and weight.shape[1] == width
        # A gap behind a weight is seen at the next one. An address tells nothing where nothing is stored.
        there = weight.untyped_storage() is first.untyped_storage() and weight.storage_offset() == follows
        if not (alike and there and weight.is_contiguous()):
            return None
        follows += weight.numel()
    return first.as_strided((sum(len(weight) for weight in weights), width), (width, 1))


class LayerProducts:
    """The products of the library's decoder `layer`, whose weights are where they stay while this is used."""

    def __init__(self, layer: Any, products: Products) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._products = products
        self._heads = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._gates = [mlp.gate_proj, mlp.up_proj]
        self._packed_heads, self._packed_gates = packed_together(self._heads), packed_together(self._gates)
        self._heads_weight, self._gates_weight = (
            in_a_row([linear.weight for linear in linears]) for linears in (self._heads, self._gates)
        )

    def of(self, linear: nn.Module, rows: Tensor) -> Tensor:
        """Return what a linear layer makes of `rows` [rows, in]."""
        return self._products.layer(linear, rows)

    def heads(self, rows: Tensor) -> Tensor:
        """Return queries, keys and values of `rows` [rows, width], one after another: [rows, sum of their widths]."""
        if self._heads_weight is not None:
            return self._products.product(rows, self._heads_weight)
        if self._packed_heads is not None:
            return packed_product(rows, self._packed_heads)
        return torch.cat([self.of(linear, rows) for linear in self._heads], dim=-1)

    def gates(self, rows: Tensor) -> Sequence[Tensor]:
        """Return the gate and what it is multiplied by, each [rows, inner width], of `rows` [rows, width]."""
        if self._gates_weight is not None:
            return self._products.product(rows, self._gates_weight).chunk(2, dim=-1)
        return list(self.gates_in_turn(rows))

    def heads_in_turn(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield queries, keys and values, each [rows, its width]; those that are not packed are made when asked for."""
        return self._in_turn(self._heads, self._packed_heads, rows)

    def gates_in_turn(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield what `gates` returns; what is not packed is made when it is asked for."""
        return self._in_turn(self._gates, self._packed_gates, rows)

    def _in_turn(self, layers: Sequence[Any], packed: Tensor | None, rows: Tensor) -> Iterator[Tensor]:
        if packed is None:
            # No expression, whose frame in a traceback could not let go of `self` (`no_tensors_in_traceback`).
            for layer in layers:
                yield self.of(layer, rows)
        else:
            yield from torch.split(packed_product(rows, packed), [layer.out_features for layer in layers], dim=-1)
