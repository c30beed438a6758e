"""Adapters become part of a transformer's weights, so that they take no memory and no time where songs are made."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from acestep.adapters.change import change_of
from acestep.adapters.choice import Adapter
from acestep.adapters.files import ChangedLayer, read_adapter_file
from acestep.adapters.placing import layers_of, open_tensors, placed_in
from acestep.adapters.source import digest_of
from acestep.errors import InvalidInputError
from acestep.fused_adapter import FusedAdapter


def fuse(transformer: nn.Module, adapters: Sequence[Adapter]) -> tuple[FusedAdapter, ...]:
    """Add what adapters change to the weights of a transformer, before they are quantized; return what was fused.

    Sums are computed in float32 and rounded once to the type of the weights. Weights that change are new tensors; the
    others, and those that only adapters of scale 0 would change, stay as they are. Names and shapes of all files are
    checked before the first weight changes. Raises `InvalidInputError`, naming the layers, for an adapter of another
    model and for values that are no numbers, and as `read_adapter_file` does.
    """
    layers = layers_of(transformer)
    files = [read_adapter_file(adapter.path) for adapter in adapters]
    placed = [placed_in(file, layers) for file in files]
    fused = tuple(FusedAdapter(name=one.name, scale=one.scale, digest=digest_of(one.path)) for one in adapters)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_tensors(file)) for file in files]
        for name, module in layers.items():
            changes = [
                (adapter, found[name], reader)
                for adapter, found, reader in zip(adapters, placed, opened, strict=True)
                if name in found and adapter.scale
            ]
            if changes:
                module.weight = nn.Parameter(_fused(name, module.weight.data, changes), requires_grad=False)
    return fused


def _fused(name: str, weight: Tensor, changes: Sequence[tuple[Adapter, ChangedLayer, Any]]) -> Tensor:
    original = weight.float()
    total = torch.zeros_like(original)
    for adapter, layer, reader in changes:
        change = change_of(layer, {part: reader.get_tensor(key) for part, key in layer.keys.items()}, original)
        if not torch.isfinite(change).all():
            raise InvalidInputError(adapter.path, f"changes {name} by values that are infinite or no numbers")
        total += change * adapter.scale
    fused = (original + total).to(weight.dtype)
    if not torch.isfinite(fused).all():
        scales = ", ".join(f"{adapter.path}:{adapter.scale:g}" for adapter, _, _ in changes)
        raise InvalidInputError(scales, f"make weights of {name} too large for {weight.dtype}; choose smaller scales")
    return fused
