"""Adapters that stay apart from the weights: they can be switched from song to song, and take memory and time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.adapters.change import change_of, factor_of, lokr_factors
from acestep.adapters.choice import Adapter
from acestep.adapters.files import AdapterFile, ChangedLayer, read_adapter_file
from acestep.adapters.memory import memory_of
from acestep.adapters.parts import AdapterPart
from acestep.adapters.placing import Layer, layers_of, open_tensors, placed_in
from acestep.adapters.products import (
    AdaptedConv1d,
    AdaptedCpuLinear,
    AdaptedLinear,
    AdapterProduct,
    Convolution,
    Kronecker,
    LowRank,
)
from acestep.adapters.source import digest_of
from acestep.errors import InvalidInputError
from acestep.fused_adapter import FusedAdapter
from acestep.memory.packed import CpuLinear

_ADAPTED: Final[dict[type[Layer], type[Layer]]] = {
    CpuLinear: AdaptedCpuLinear,
    nn.Linear: AdaptedLinear,
    nn.Conv1d: AdaptedConv1d,
}
"""The class of a layer with adapters for each class without; a class before those that it is derived from."""


class AdaptersApart:
    """The adapters beside the weights of one transformer, in the type of its numbers; none at first.

    The weights are never written, so without adapters they are what they were, bit for bit, quantized or not.
    """

    def __init__(self, transformer: nn.Module, dtype: torch.dtype) -> None:
        self._transformer = transformer
        self._dtype = dtype
        self._products: dict[Path, list[AdapterProduct]] = {}
        self._digests: dict[Path, str] = {}
        self.memory: AdapterMemory = NO_ADAPTERS

    def use(self, adapters: Sequence[Adapter], before_change: Callable[[], None]) -> tuple[FusedAdapter, ...]:
        """Use adapters at their scales, and no others; return what songs are told of those that are not at 0.

        If the same are attached, they are only switched: one that is to stay for later songs is named at scale 0.
        Otherwise `before_change` is called, and these are attached in place of the others. Raises as
        `read_adapter_file` does, and `InvalidInputError` for an adapter of another model, for one whose change is no
        product, and for values that are no numbers; then nothing is changed.
        """
        wanted: dict[Path, float] = {}
        for one in adapters:
            wanted[one.path] = wanted.get(one.path, 0.0) + one.scale
        if not self.holds(adapters):
            # Sums are rounded: songs must not depend on the order in which adapters were named first.
            self._attach(tuple(sorted(wanted)), before_change)
        for path, products in self._products.items():
            for product in products:
                product.set_scale(wanted[path])
        return tuple(
            FusedAdapter(name=one.name, scale=one.scale, digest=self._digests[one.path], fused=False)
            for one in adapters
            if one.scale
        )

    def holds(self, adapters: Sequence[Adapter]) -> bool:
        """Return whether these adapters are attached, and no others."""
        return {one.path for one in adapters} == self._products.keys()

    def _attach(self, paths: tuple[Path, ...], before_change: Callable[[], None]) -> None:
        layers = layers_of(self._transformer)
        files = [read_adapter_file(path) for path in paths]
        digests = {path: digest_of(path) for path in paths}
        found: dict[str, list[AdapterProduct]] = {}
        attached: dict[Path, list[AdapterProduct]] = {}
        for path, file in zip(paths, files, strict=True):
            products = self._products_of(file, layers)
            attached[path] = list(products.values())
            for name, product in products.items():
                found.setdefault(name, []).append(product)
        before_change()
        for name, layer in layers.items():
            if name in found or hasattr(layer, "products"):
                self._replace(name, layer, found.get(name, []))
        self._products, self._digests, self.memory = attached, digests, memory_of(files)

    def _products_of(self, file: AdapterFile, layers: dict[str, Layer]) -> dict[str, AdapterProduct]:
        placed = placed_in(file, layers)
        with open_tensors(file) as reader:
            return {
                name: _checked(
                    file, name, _product(file, name, change, _read(reader, change), layers[name], self._dtype)
                )
                for name, change in placed.items()
            }

    def _replace(self, name: str, layer: Layer, products: list[AdapterProduct]) -> None:
        """Put a layer of the same weight, with these products, in the place of one."""
        parent, _, own = name.rpartition(".")
        plain = next(kind for kind in _ADAPTED if isinstance(layer, kind))
        kind = _ADAPTED[plain] if products else plain
        # Only the class and the products are new: `_parameters` is what placement moves.
        new: Layer = nn.Module.__new__(kind)
        new.__dict__ = {**layer.__dict__, "_modules": {"products": nn.ModuleList(products)} if products else {}}
        setattr(self._transformer.get_submodule(parent), own, new)


def _read(reader: object, change: ChangedLayer) -> dict[AdapterPart, Tensor]:
    return {part: reader.get_tensor(key).float() for part, key in change.keys.items()}  # type: ignore[attr-defined]


def _product(
    file: AdapterFile,
    name: str,
    change: ChangedLayer,
    parts: dict[AdapterPart, Tensor],
    layer: Layer,
    dtype: torch.dtype,
) -> AdapterProduct:
    if change.magnitude is not None:
        raise InvalidInputError(
            file.weights,
            f"changes the lengths of {name} (DoRA), which only an adapter that is part of the weights can do; leave out"
            " --lora-unfused",
        )
    if isinstance(layer, nn.Conv1d):
        shape = torch.empty(layer.weight.shape, device="cpu")
        return Convolution(change_of(change, parts, shape).to(dtype), layer.stride, layer.padding)
    factor = factor_of(change, parts)
    if AdapterPart.DOWN in parts:
        return LowRank(
            (parts[AdapterPart.UP].flatten(1) * factor).to(dtype), parts[AdapterPart.DOWN].flatten(1).to(dtype)
        )
    first, second = lokr_factors(parts)
    return Kronecker((first * factor).to(dtype), second.to(dtype))


def _checked(file: AdapterFile, name: str, product: AdapterProduct) -> AdapterProduct:
    if not all(torch.isfinite(tensor).all() for tensor in product.parameters()):
        raise InvalidInputError(file.weights, f"changes {name} by values that are infinite or no numbers")
    return product
