"""A language model's weights packed for the CPU, those that read the same rows together, and its head for a while.

A step reads every weight once, for a few rows, which takes half of the time packed (`acestep.memory.packed`).
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from acestep.lm.products import LARGE, Product, is_plain
from acestep.lm.sampling import Spans
from acestep.memory.packed import can_pack, packed_product, packed_weight, parents_of_layers
from acestep.units import MIB

OFTEN: Final = 16
"""A part of a weight is packed when it has been asked for so many times in a row: until then packing costs more than it
saves.
"""


class PackedLinear(nn.Module):
    """A linear layer without bias: some columns of what a packed `weight` makes of rows, which layers may share.

    It has no parameters.
    """

    def __init__(self, weight: Tensor, columns: range) -> None:
        super().__init__()
        self.weight = weight
        self.columns = columns
        self.out_features = len(columns)

    def forward(self, rows: Tensor) -> Tensor:
        return packed_product(rows, self.weight)[..., self.columns.start : self.columns.stop]


TOGETHER: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one parent that are given the same rows: packed as one, they are one product, with the same bits."""


def pack_layers(model: nn.Module) -> None:
    """Replace the linear layers of `model` that can be packed, one after the other."""
    for parent in parents_of_layers(model):
        names = [name for name, _ in parent.named_children()]
        groups = [group for group in TOGETHER if set(group) <= set(names)]
        alone = [(name,) for name in names if not any(name in group for group in groups)]
        for group in (*groups, *alone):
            _pack(parent, group)


def _pack(parent: nn.Module, names: Sequence[str]) -> None:
    layers: list[Any] = [getattr(parent, name) for name in names]
    if not all(isinstance(layer, nn.Linear) and layer.bias is None and is_plain(layer.weight) for layer in layers):
        return
    weight = torch.cat([layer.weight for layer in layers]) if len(layers) > 1 else layers[0].weight
    if can_pack(weight, LARGE):
        made, first = packed_weight(weight), 0
        for name, layer in zip(names, layers, strict=True):
            setattr(parent, name, PackedLinear(made, range(first, first + layer.out_features)))
            first += layer.out_features


def packed_together(layers: Sequence[nn.Module]) -> Tensor | None:
    """Return the packed weight of all these layers and no others, None if they have none."""
    weights = [layer.weight for layer in layers if isinstance(layer, PackedLinear)]
    shared = len(weights) == len(layers) and all(weight is weights[0] for weight in weights)
    return weights[0] if shared else None


MOST_PACKED: Final = 640 * MIB
"""Bytes of a packed copy: the audio codes of 4B in float32 take 625 MiB, and all of its tokens 2.1 GiB.

What a run takes besides its weights (`BESIDE_BYTES` of `acestep.checkpoints.host_memory`) is more, and is taken after
the songs are planned.
"""


class Head:
    """The products of a step with the rows of `weight` [out, in] for some tokens, by `product` or packed.

    The head is the embedding, whose rows are read one by one, so what is packed of it is a copy: of the tokens that
    were asked for last, if they have been asked for often. The audio codes of 0.6B are an eighth of what a step reads.
    Nothing is packed unless it `packs`.
    """

    def __init__(self, weight: Tensor, product: Product, *, packs: bool) -> None:
        self._weight = weight
        self._product = product
        self._packs = packs
        self._spans: Spans = ()
        self._times = 0
        self._packed: list[Tensor | None] = []

    def logits(self, states: Tensor, spans: Spans) -> Tensor:
        """Return float32 logits [rows, ids] of `states` [rows, in] for the ids in `spans`."""
        self._count(spans)
        parts: list[Tensor] = []
        # No comprehension, whose frame in a traceback could not let go of `self` (`no_tensors_in_traceback`).
        for ids, ready in zip(spans, self._packed, strict=True):
            made = self._product(states, self._part(ids)) if ready is None else packed_product(states, ready)
            parts.append(made.float())
            del made
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _count(self, spans: Spans) -> None:
        if spans != self._spans:
            self._spans, self._times, self._packed = spans, 0, [None] * len(spans)
        self._times += 1
        if self._packs and self._times == OFTEN:
            parts: Sequence[Tensor] = [self._part(ids) for ids in spans]
            if sum(part.nbytes for part in parts) <= MOST_PACKED:
                self._packed = [packed_weight(part) if can_pack(part, LARGE) else None for part in parts]

    def _part(self, ids: range) -> Tensor:
        return self._weight[ids.start : ids.stop]
