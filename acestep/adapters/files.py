"""An adapter's file before its numbers are read: which layers it changes, and by which tensors. Imports no torch."""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import msgspec

from acestep.adapters.names import PEFT_PREFIX
from acestep.adapters.parts import AdapterPart, Shape, changed_shape, factors_of, is_whole, layer_and_part, rank_of
from acestep.adapters.scaling import DIFFUSERS_FIELD, PeftConfig, config_in, config_of_diffusers
from acestep.adapters.source import AdapterSource, source_of
from acestep.checkpoints.configs import some
from acestep.checkpoints.header import FLOATS, StoredTensor, read_header, read_metadata
from acestep.errors import InvalidInputError

_NUMBERS = (*FLOATS, "I64", "I32")
"""The types of an alpha: some trainers store it as a whole number."""


class ChangedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one layer, as the file names it: the tensor of each part, and the shape of the weight it changes.

    `factors` are the shapes of the two factors of a LoKr, None for a LoRA. `magnitude` is the shape of the lengths of
    rows or columns, None without them. `rank` is the inner size of the matrix products, None without one. `factor` is
    what a configuration multiplies the change by; None if the file has an alpha or nothing is known.
    """

    keys: Mapping[AdapterPart, str]
    shape: Shape
    factors: tuple[Shape, Shape] | None
    magnitude: Shape | None
    rank: int | None
    factor: float | None


class AdapterFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the weights of an adapter hold: its layers by the names that the file gives them."""

    weights: Path
    layers: Mapping[str, ChangedLayer]


def read_adapter_file(path: Path) -> AdapterFile:
    """Return what the adapter at a path holds, without reading its numbers.

    Raises `InvalidInputError`, naming the tensors, for a file that is missing or damaged, for a tensor that no LoRA or
    LoKr has, for a layer of which a part is missing or does not go with the others, and for an unknown scale.
    """
    source = source_of(path)
    tensors = read_header(source.weights)
    found: dict[str, dict[AdapterPart, str]] = {}
    strange = list[str]()
    for key in tensors:
        if (known := layer_and_part(key)) is None:
            strange.append(key)
            continue
        layer, part = known
        if part in found.setdefault(layer, {}):
            raise InvalidInputError(source.weights, f"holds {key} and {found[layer][part]}, which are the same part")
        found[layer][part] = key
    if strange:
        raise InvalidInputError(source.weights, f"holds {some(strange)}, which no LoRA or LoKr has")
    config = _config_of(source, found)
    layers = {layer: _layer(source.weights, layer, keys, tensors, config) for layer, keys in found.items()}
    return AdapterFile(weights=source.weights, layers=layers)


def changed_values(paths: Iterable[Path]) -> int:
    """Return the number of values in the weights that the adapters at some paths change."""
    return sum(prod(layer.shape) for path in paths for layer in read_adapter_file(path).layers.values())


def _config_of(source: AdapterSource, found: Mapping[str, Mapping[AdapterPart, str]]) -> PeftConfig | None:
    """The configuration that decides the scale of every layer without an alpha of its own."""
    if all(AdapterPart.ALPHA in keys for keys in found.values()):
        return None
    of_peft = any(layer.startswith(PEFT_PREFIX) for layer in found)
    if of_peft and source.config is not None:
        return config_in(source.config)
    if (text := read_metadata(source.weights).get(DIFFUSERS_FIELD)) is not None:
        return config_of_diffusers(text, source.weights)
    if of_peft:
        raise InvalidInputError(
            source.weights,
            "its scale is not known: PEFT writes it into adapter_config.json; put that file beside this one",
        )
    return None


def _layer(
    file: Path,
    name: str,
    keys: Mapping[AdapterPart, str],
    tensors: Mapping[str, StoredTensor],
    config: PeftConfig | None,
) -> ChangedLayer:
    if not is_whole(frozenset(keys)):
        raise InvalidInputError(
            file, f"holds {some(sorted(keys.values()))} of {name}, which make no whole LoRA or LoKr of this layer"
        )
    for part, key in keys.items():
        known = _NUMBERS if part is AdapterPart.ALPHA else FLOATS
        if tensors[key].dtype not in known:
            raise InvalidInputError(file, f"{key} is {tensors[key].dtype}; expected {', '.join(known)}")
        if part is AdapterPart.ALPHA and tensors[key].values != 1:
            raise InvalidInputError(file, f"{key} has shape {list(tensors[key].shape)}; expected one number")
    shapes = {part: tensors[key].shape for part, key in keys.items()}
    try:
        shape, rank = changed_shape(shapes), rank_of(shapes)
        factors = None if AdapterPart.DOWN in shapes else factors_of(shapes)
        factor = None if config is None or AdapterPart.ALPHA in keys else config.factor(name, rank)
    except ValueError as error:
        raise InvalidInputError(file, f"{name} cannot be used: {error}") from None
    if 0 in shape or rank == 0:
        raise InvalidInputError(file, f"{name} cannot be used: it has no values")
    magnitude = shapes.get(AdapterPart.MAGNITUDE)
    if magnitude is None and config is not None and config.use_dora:
        raise InvalidInputError(file, f"{name} lacks its lora_magnitude_vector, and its configuration has use_dora")
    return ChangedLayer(keys=keys, shape=shape, factors=factors, magnitude=magnitude, rank=rank, factor=factor)
