"""What an adapter adds to one weight, in float32."""

from collections.abc import Mapping

import torch
from torch import Tensor

from acestep.adapters.files import ChangedLayer
from acestep.adapters.parts import AdapterPart

LayerTensors = Mapping[AdapterPart, Tensor]
"""The tensors of one layer in an adapter's file."""


def change_of(layer: ChangedLayer, tensors: LayerTensors, weight: Tensor) -> Tensor:
    """Return what an adapter at scale 1 adds to a float32 weight, in its shape."""
    parts = {part: tensor.float() for part, tensor in tensors.items()}
    change = (_lora(parts) if AdapterPart.DOWN in parts else _lokr(parts)).reshape(weight.shape)
    change *= factor_of(layer, parts)
    if AdapterPart.MAGNITUDE in parts:
        change = _with_magnitude(weight + change, parts[AdapterPart.MAGNITUDE]) - weight
    return change


def factor_of(layer: ChangedLayer, parts: LayerTensors) -> float:
    """Return what the product of a layer's matrices is multiplied by at scale 1.

    A file's alpha means alpha / rank (kohya's sd-scripts, `LokrModule` of LyCORIS), and without one the factor is 1, as
    for diffusers and ComfyUI; for a LoKr without matrix products it is 1 in any case.
    """
    if layer.factor is not None:
        return layer.factor
    if AdapterPart.ALPHA in parts and layer.rank is not None:
        return float(parts[AdapterPart.ALPHA].float().reshape(()) / layer.rank)
    return 1.0


def lokr_factors(parts: LayerTensors) -> tuple[Tensor, Tensor]:
    """Return the two factors of a LoKr's Kronecker product; the second may have the axes of a convolution's kernel."""
    first = parts[AdapterPart.W1] if AdapterPart.W1 in parts else parts[AdapterPart.W1_A] @ parts[AdapterPart.W1_B]
    if AdapterPart.W2 in parts:
        second = parts[AdapterPart.W2]
    elif AdapterPart.T2 in parts:
        second = torch.einsum(
            "ij...,ip,jr->pr...", parts[AdapterPart.T2], parts[AdapterPart.W2_A], parts[AdapterPart.W2_B]
        )
    else:
        second = parts[AdapterPart.W2_A] @ parts[AdapterPart.W2_B]
    return first, second


def _lora(parts: LayerTensors) -> Tensor:
    return parts[AdapterPart.UP].flatten(1) @ parts[AdapterPart.DOWN].flatten(1)


def _lokr(parts: LayerTensors) -> Tensor:
    first, second = lokr_factors(parts)
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second.contiguous())


def _with_magnitude(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Give each row of a weight, or each column, the length that a file says (DoRA, arXiv:2402.09353).

    Rows as PEFT and LyCORIS have it by default; columns where LyCORIS wrote [1, in].
    """
    rows = magnitude.shape[0] == magnitude.numel()
    axes = tuple(axis for axis in range(weight.ndim) if axis != (0 if rows else 1))
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
    lengths = lengths.clamp_min(torch.finfo(torch.float32).tiny)
    return weight * (magnitude.reshape(lengths.shape) / lengths)
