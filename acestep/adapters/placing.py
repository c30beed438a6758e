"""Where an adapter's changes belong in a transformer."""

from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from acestep.adapters.files import AdapterFile, ChangedLayer
from acestep.adapters.names import layers_by_name
from acestep.adapters.parts import fits, is_magnitude_of
from acestep.checkpoints.configs import some
from acestep.errors import InvalidInputError

Layer = nn.Linear | nn.Conv1d
"""A layer that an adapter may change."""


def layers_of(transformer: nn.Module) -> dict[str, Layer]:
    """Return the layers that adapters may change, by their names."""
    return {name: part for name, part in transformer.named_modules() if isinstance(part, Layer)}


def open_tensors(file: AdapterFile) -> Any:
    """Open the tensors of an adapter; raise `InvalidInputError` for a damaged file."""
    try:
        return safe_open(file.weights, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(file.weights, f"is damaged ({error})") from None


def placed_in(file: AdapterFile, layers: Mapping[str, Layer]) -> dict[str, ChangedLayer]:
    """Return the changes of a file by the layers of a transformer.

    Raises `InvalidInputError`, naming the layers, for an adapter of another model.
    """
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
