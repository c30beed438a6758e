"""Adapters become part of a transformer's weights, so that they take no memory and no time where songs are made."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from acestep.adapters.change import change_of
from acestep.adapters.choice import Adapter
from acestep.adapters.files import AdapterFile, ChangedLayer, read_adapter_file
from acestep.adapters.names import layers_by_name
from acestep.adapters.parts import fits, is_magnitude_of
from acestep.adapters.source import digest_of
from acestep.checkpoints.configs import some
from acestep.errors import InvalidInputError
from acestep.fused_adapter import FusedAdapter


def fuse(transformer: nn.Module, adapters: Sequence[Adapter]) -> tuple[FusedAdapter, ...]:
    """Add what adapters change to the weights of a transformer, before they are quantized; return what was fused.

    Sums are computed in float32 and rounded once to the type of the weights. Weights that change are new tensors; the
    others, and those that only adapters of scale 0 would change, stay as they are. Names and shapes of all files are
    checked before the first weight changes. Raises `InvalidInputError`, naming the layers, for an adapter of another
    model and for values that are no numbers, and as `read_adapter_file` does.
    """
    layers = {name: part for name, part in transformer.named_modules() if isinstance(part, nn.Linear | nn.Conv1d)}
    files = [read_adapter_file(adapter.path) for adapter in adapters]
    placed = [_placed(file, layers) for file in files]
    fused = tuple(FusedAdapter(name=one.name, scale=one.scale, digest=digest_of(one.path)) for one in adapters)
    with ExitStack() as stack:
        opened = [stack.enter_context(_open(file)) for file in files]
        for name, module in layers.items():
            changes = [
                (adapter, found[name], reader)
                for adapter, found, reader in zip(adapters, placed, opened, strict=True)
                if name in found and adapter.scale
            ]
            if changes:
                module.weight = nn.Parameter(_fused(name, module.weight.data, changes), requires_grad=False)
    return fused


def _open(file: AdapterFile) -> Any:
    try:
        return safe_open(file.weights, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(file.weights, f"is damaged ({error})") from None


def _placed(file: AdapterFile, layers: Mapping[str, nn.Linear | nn.Conv1d]) -> dict[str, ChangedLayer]:
    """The changes of a file by the layers of this transformer."""
    known = layers_by_name(layers)
    if strange := [name for name in file.layers if name not in known]:
        raise InvalidInputError(
            file.weights,
            f"changes {some(strange)}, which this transformer does not have; the adapter is for another model",
        )
    placed: dict[str, ChangedLayer] = {}
    for name, change in file.layers.items():
        layer = known[name]
        if layer in placed:
            raise InvalidInputError(file.weights, f"changes {layer} twice, the second time as {name}")
        shape = tuple(layers[layer].weight.shape)
        if not fits(change.shape, shape):
            raise InvalidInputError(
                file.weights,
                f"{name} changes a weight of {list(change.shape)}, and this transformer's has {list(shape)}; the"
                " adapter is for a model of another size, so choose that one with --model",
            )
        if change.magnitude is not None and not is_magnitude_of(change.magnitude, shape):
            raise InvalidInputError(
                file.weights, f"{name} has lengths of shape {list(change.magnitude)} for a weight of {list(shape)}"
            )
        placed[layer] = change
    return placed


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
