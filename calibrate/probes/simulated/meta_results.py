"""What an operation gives on meta tensors, remembered by the layouts of its arguments: many kernels are slow Python."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from calibrate.probes.simulated.operations import Operation
from calibrate.probes.simulated.work_counter import Counts, tensors_in

MOST_RESULTS = 20_000
"""Kept at once, about 1 KiB each; then all are forgotten."""

_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]


class _NotRememberedError(Exception):
    """An argument is a wrapper or on the host: what the operation gives is not known from layouts alone."""


class MetaResult(NamedTuple):
    """The layout of the result, None if it is the first argument, changed in place; and the work."""

    layout: _Layout | None
    work: Counts

    def result(self, args: tuple[Any, ...]) -> Tensor:
        """The result that the kernel would have returned, without values."""
        if self.layout is None:
            changed: Tensor = args[0]
            return changed
        shape, strides, dtype = self.layout
        return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


class MetaResults:
    """The results of one process: they depend on nothing but an operation, its arguments and the default dtype."""

    def __init__(self) -> None:
        self._known: dict[Hashable, MetaResult] = {}

    def key(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
        """The operation and the layouts of its arguments; None if what it gives is not known from them."""
        if not operation.gives_one_tensor:
            return None
        try:
            named = tuple([(name, _seen(value)) for name, value in kwargs.items()]) if kwargs else ()
            return id(operation.func), _seen(args), named, torch.get_default_dtype()
        except _NotRememberedError:
            return None

    def find(self, key: Hashable | None) -> MetaResult | None:
        """What was remembered under a key; None if nothing was."""
        try:
            return None if key is None else self._known.get(key)
        except TypeError:
            # An argument that has no hash.
            return None

    def remember(
        self, key: Hashable | None, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, work: Counts
    ) -> None:
        """Keep what was computed, if it is a new tensor or the first argument."""
        if key is None or type(out) is not Tensor or not out.is_meta:
            return
        try:
            hash(key)
        except TypeError:
            return
        if len(self._known) >= MOST_RESULTS:
            self._known.clear()
        if args and out is args[0]:
            self._known[key] = MetaResult(None, work)
            return
        layout = (out.shape, out.stride(), out.dtype)
        entry = MetaResult(layout, work)
        # Some results share the storage of an argument although their schema does not say so (`_unsafe_view`).
        storage = out.untyped_storage()
        shared = any(leaf.untyped_storage()._cdata == storage._cdata for leaf in tensors_in((*args, *kwargs.values())))
        if not shared and entry.result(args).untyped_storage().nbytes() == storage.nbytes():
            self._known[key] = entry


def _seen(value: Any) -> Hashable:
    kind = type(value)
    if kind is Tensor or kind is Parameter:
        if not value.is_meta:
            raise _NotRememberedError
        return value.shape, value.stride(), value.dtype
    if kind is tuple or kind is list:
        return tuple([_seen(leaf) for leaf in value])
    if isinstance(value, Tensor):
        raise _NotRememberedError
    # 1, 1.0 and True are equal but give results of other types.
    return kind, value
