"""Tensors made of tensors: quantised weights are wrappers whose inner tensors hold the bytes."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


def map_storage(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`tensor` with `change` applied to every plain tensor inside; parameters stay parameters."""
    is_parameter = isinstance(tensor, nn.Parameter)
    plain: Any = tensor.data if is_parameter else tensor
    if hasattr(plain, "__tensor_flatten__"):
        names, context = plain.__tensor_flatten__()
        inner = {name: map_storage(getattr(plain, name), change) for name in names}
        changed = type(plain).__tensor_unflatten__(inner, context, plain.shape, plain.stride())
    else:
        changed = change(plain)
    return nn.Parameter(changed, requires_grad=False) if is_parameter else changed


def slots(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every place of one module, not of its children, that holds a tensor: a table, the key in it, and the tensor."""
    tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)  # noqa: SLF001 no public view can be set
    for table in tables:
        for key, tensor in list(table.items()):
            if tensor is not None:
                yield table, key, tensor


def plain(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors inside, in the order in which `map_storage` meets them."""
    data: Any = tensor.data if isinstance(tensor, nn.Parameter) else tensor
    if hasattr(data, "__tensor_flatten__"):
        for name in data.__tensor_flatten__()[0]:
            yield from plain(getattr(data, name))
    else:
        yield data


class Arena:
    """Lays tensors out one after another in a buffer of bytes."""

    ALIGNMENT = 256
    """Bytes; what CUDA gives any allocation, so kernels find weights aligned as they would be on their own."""

    def __init__(self, buffer: Tensor) -> None:
        self._buffer = buffer
        self._used = 0

    @classmethod
    def bytes_for(cls, tensor: Tensor) -> int:
        """What `like` takes of a buffer for the plain tensors inside `tensor`."""
        return sum(-(-_extent(part) * part.itemsize // cls.ALIGNMENT) * cls.ALIGNMENT for part in plain(tensor))

    def like(self, tensor: Tensor) -> Tensor:
        """A tensor with the layout of the plain `tensor` over the next bytes of the buffer, unwritten."""
        piece = self._buffer[self._used : self._used + _extent(tensor) * tensor.itemsize].view(tensor.dtype)
        self._used += self.bytes_for(tensor)
        return piece.as_strided(tensor.shape, tensor.stride(), piece.storage_offset())


def _extent(tensor: Tensor) -> int:
    """Elements between the first and the last of a plain tensor, both included."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
