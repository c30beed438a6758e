"""The model for songs that a service keeps loaded from one request to the next."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import torch

from acestep.adapters.apart import AdaptersApart
from acestep.adapters.choice import Adapter
from acestep.adapters.files import changed_values
from acestep.adapters.fuse import fuse
from acestep.adapters.memory import memory_apart
from acestep.checkpoints.components import Components
from acestep.checkpoints.host_memory import Weights
from acestep.checkpoints.load import load
from acestep.devices.base import Device
from acestep.devices.threads import set_threads
from acestep.engine.pipeline import prepare
from acestep.knobs import Quantization, Variant
from acestep.limits.plan import Plan
from acestep.memory.packed import pack_linears, packs

_LOG: Final = logging.getLogger(__name__)

_Key = tuple[Variant, Quantization | None, torch.dtype, bool, tuple[Adapter, ...]]
"""The properties of a loaded model; the fourth is whether its weights are packed, the last what is part of them."""


class KeptModel:
    """At most one model, that of the last plan.

    `take_back` is called before weights are freed or changed: none may be in use on the device then.
    """

    def __init__(self, model: str, device: Device, take_back: Callable[[], None]) -> None:
        self._model = model
        self._device = device
        self._take_back = take_back
        self._kept: tuple[_Key, Components, AdaptersApart] | None = None

    def is_of(self, plan: Plan, dtype: torch.dtype, adapters: Sequence[Adapter]) -> bool:
        """Return whether the model of a plan is loaded, with the adapters that become part of its weights."""
        return self._kept is not None and self._kept[0] == self._key(plan, dtype, adapters)

    def of(self, plan: Plan, dtype: torch.dtype, adapters: Sequence[Adapter]) -> Components:
        """Return the model of a plan with `adapters`; it is loaded if another one is."""
        if self._kept is None or not self.is_of(plan, dtype, adapters):
            self.close()
            self._kept = self._load(plan, dtype, adapters)
        key, components, apart = self._kept
        # Weights are placed when a pipeline is made.
        used = apart.use(_apart_of(adapters), self._take_back)
        fused = tuple(one for one in components.adapters if one.fused)
        components = msgspec.structs.replace(components, adapters=(*fused, *used), adapter_memory=apart.memory)
        self._kept = key, components, apart
        return components

    def values_to_attach(self, adapters: Sequence[Adapter]) -> int:
        """Return the values of adapters beside the weights that `of` reads: 0 if the same are attached."""
        if self._kept is not None and self._kept[2].holds(_apart_of(adapters)):
            return 0
        return sum(memory_apart(adapters).tensors)

    def close(self) -> None:
        """Free the model; nothing if none is loaded."""
        self._take_back()
        self._kept = None

    def _load(
        self, plan: Plan, dtype: torch.dtype, adapters: Sequence[Adapter]
    ) -> tuple[_Key, Components, AdaptersApart]:
        key = self._key(plan, dtype, adapters)
        _LOG.info("loading %s as %s", self._model, plan.variant)
        started = time.perf_counter()
        components = load(self._model, plan.variant, dtype=dtype, quantization=plan.quantization)
        components = msgspec.structs.replace(components, adapters=fuse(components.transformer, key[-1]))
        prepare(components, plan.knobs)
        apart = AdaptersApart(components.transformer, dtype)
        if self._device.torch_device.type == "cpu":
            set_threads(components.modules().values())
        # The weights of a model that is noise share a few pages of memory, and packed ones would not.
        if packs_for(plan, dtype, self._device) and components.is_noise is None:
            for module in components.modules().values():
                pack_linears(module)
        _LOG.info("loaded in %.1f s", time.perf_counter() - started)
        return key, components, apart

    def _key(self, plan: Plan, dtype: torch.dtype, adapters: Sequence[Adapter]) -> _Key:
        fused = tuple(one for one in adapters if one.fused)
        return plan.variant, plan.quantization, dtype, packs_for(plan, dtype, self._device), fused


def packs_for(plan: Plan, dtype: torch.dtype, device: Device) -> bool:
    """Return whether a model's weights are packed on a device; the compiler takes none that are."""
    return device.shares_host_memory and dtype is torch.float32 and packs(dtype) and not plan.compile


def _apart_of(adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    return tuple(one for one in adapters if not one.fused)


def weights_to_load(model: str, plan: Plan, adapters: Sequence[Adapter], *, packed: bool) -> Weights:
    """Return what is loaded for songs of a model with adapters, to look whether main memory has room for it."""
    return Weights(
        model=model,
        variant=plan.variant,
        quantization=plan.quantization,
        fused_values=changed_values(one.path for one in adapters if one.fused),
        packed=packed,
    )
