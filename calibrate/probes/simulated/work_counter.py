"""Counts the work of operations on the simulated card, from the layouts of their tensors alone."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from acestep.lm import int8_product
from calibrate.probes.work import KernelSums, Work

_aten = torch.ops.aten

PRODUCTS: Final = {
    _aten.mm.default: 0,
    _aten.addmm.default: 1,
    _aten.bmm.default: 0,
    _aten.baddbmm.default: 1,
    _aten._int_mm.default: 0,
    _aten._scaled_mm.default: 0,
}
"""Operations with matrix products of the matrix library, and which argument is the left matrix."""

_MULTIPLYING: Final = PRODUCTS | {int8_product.OPERATOR: 0}

CONVOLUTIONS: Final = (_aten.convolution.default, _aten._convolution.default)

_NO_KERNEL: Final = frozenset(
    {
        _aten.empty.memory_format,
        _aten.empty_strided.default,
        _aten.empty_like.default,
        _aten.new_empty.default,
        _aten.new_empty_strided.default,
        _aten.detach.default,
        _aten.resize_.default,
        _aten.set_.source_Storage_storage_offset,
    }
)
"""Operations that only allocate, or only make another tensor of the same bytes."""

_LOOK_UPS: Final = (_aten.embedding.default, _aten.index_select.default)
"""Operations that read of their first tensor no more than they write."""

_PRODUCT, _CONVOLUTION, _ATTENTION, _OTHER = range(4)
_FIELDS: Final = len(KernelSums.__struct_fields__)
_TRANSFERRED: Final = 4 * _FIELDS
_WAITS: Final = _TRANSFERRED + 1

Counts = tuple[int, ...]
"""Four kinds of four numbers as in `KernelSums`, then the bytes between host and card, and the waits of the host."""

NOTHING: Final[Counts] = (0,) * (_WAITS + 1)


class WorkCounter:
    """The sums since it was made. Only differences of two `counts` have a meaning."""

    def __init__(self) -> None:
        self._sums = list(NOTHING)

    @property
    def counts(self) -> Counts:
        """The sums so far."""
        return tuple(self._sums)

    def since(self, before: Counts) -> Counts:
        """What was added since an earlier state."""
        return tuple(now - then for now, then in zip(self._sums, before, strict=True))

    def add(self, counts: Counts) -> None:
        """Count the same work again."""
        if counts is NOTHING:
            return
        self._sums = [mine + more for mine, more in zip(self._sums, counts, strict=True)]

    def transfer(self, n_bytes: int) -> None:
        """Count bytes that cross between host and card."""
        self._sums[_TRANSFERRED] += n_bytes

    def wait(self) -> None:
        """Count that the host waits for the card."""
        self._sums[_WAITS] += 1

    def attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, out: Tensor) -> None:
        """Count one fused attention kernel; the tensors are [batch, heads, rows, dim]."""
        flops = 4 * query.numel() * key.shape[-2]
        read = [query, key, value] if mask is None else [query, key, value, mask]
        self.add(_counted(_ATTENTION, flops, read, [out]))


def work_of(func: Any, args: Sequence[Any], out: Any) -> Counts:
    """Count one operation that is no view, with its result.

    Operations on wrapped tensors are left out: those on the tensors inside follow.
    """
    read, written = tensors_in(args), tensors_in([out])
    if func in _NO_KERNEL or any(map(_is_wrapper, (*read, *written))):
        return NOTHING
    kind, flops = _OTHER, 0
    if func in _MULTIPLYING:
        kind, flops = _PRODUCT, 2 * out.numel() * args[_MULTIPLYING[func]].shape[-1]
    elif func in CONVOLUTIONS:
        # Each value of the input (transposed) or output meets one filter of the other side's channels.
        sliding = args[0] if args[6] else out
        kind, flops = _CONVOLUTION, 2 * sliding.numel() * (args[1].numel() // args[1].shape[0])
    elif func in _LOOK_UPS:
        read = [*written, *read[1:]]
    return _counted(kind, flops, read, written)


def _counted(kind: int, flops: int, read: Iterable[Tensor], written: Iterable[Tensor]) -> Counts:
    sums = list(NOTHING)
    at = kind * _FIELDS
    sums[at : at + _FIELDS] = flops, sum(map(_bytes, read)), sum(map(_bytes, written)), 1
    return tuple(sums)


def work_between(before: Counts, after: Counts) -> Work:
    """The work between two states of a counter."""
    counts = tuple(now - then for then, now in zip(before, after, strict=True))
    products, convolutions, attention, others = (
        KernelSums(*counts[at : at + _FIELDS]) for at in range(0, _TRANSFERRED, _FIELDS)
    )
    return Work(
        products=products,
        convolutions=convolutions,
        attention=attention,
        others=others,
        transferred_bytes=counts[_TRANSFERRED],
        waits=counts[_WAITS],
    )


def _bytes(tensor: Tensor) -> int:
    """The bytes that a kernel touches: a value that is repeated by a stride of 0 is read once."""
    size = tensor.element_size()
    for extent, step in zip(tensor.shape, tensor.stride(), strict=True):
        if step:
            size *= extent
        elif not extent:
            return 0
    return size


def tensors_in(args: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, and in lists among them; a general walk over nested arguments is slower."""
    nearby = [leaf for arg in args for leaf in (arg if isinstance(arg, list | tuple) else (arg,))]
    return [leaf for leaf in nearby if isinstance(leaf, Tensor)]


def _is_wrapper(tensor: Tensor) -> bool:
    return hasattr(type(tensor), "__tensor_flatten__")
