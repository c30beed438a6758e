"""Tensors made of inner tensors: quantised weights are wrappers whose inner tensors hold the bytes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from acestep.devices.base import Device
from acestep.units import MIB, ceil_div


def map_storage(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`tensor` with `change` applied to every plain tensor inside; parameters stay parameters."""
    wrapper: Any = tensor
    if hasattr(wrapper, "__tensor_flatten__"):
        names, context = wrapper.__tensor_flatten__()
        inner = {name: map_storage(getattr(wrapper, name), change) for name in names}
        changed = type(wrapper).__tensor_unflatten__(inner, context, wrapper.shape, wrapper.stride())
    else:
        changed = change(tensor)
    return nn.Parameter(changed, requires_grad=False) if isinstance(tensor, nn.Parameter) else changed


def slots(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Yield every place in a module, not in its children, that holds a tensor: a dictionary, its key, the tensor."""
    tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)  # noqa: SLF001 no public view can be set
    for table in tables:
        for key, tensor in list(table.items()):
            if tensor is not None:
                yield table, key, tensor


def plain(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors inside, in the order in which `map_storage` meets them."""
    wrapper: Any = tensor
    if hasattr(wrapper, "__tensor_flatten__"):
        for name in wrapper.__tensor_flatten__()[0]:
            yield from plain(getattr(wrapper, name))
    else:
        yield tensor


class Arena:
    """Lays out tensors one after another in a byte buffer."""

    ALIGNMENT = 256
    """Alignment in bytes: that of every CUDA allocation, so that kernels find weights aligned as in their own
    allocation.
    """

    def __init__(self, buffer: Tensor) -> None:
        self._buffer = buffer
        self._used = 0

    @classmethod
    def bytes_for(cls, tensor: Tensor) -> int:
        """Return the bytes of a buffer that `like` takes for the plain tensors inside `tensor`."""
        return sum(ceil_div(_extent(part) * part.itemsize, cls.ALIGNMENT) * cls.ALIGNMENT for part in plain(tensor))

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


CHUNK_BYTES = 128 * MIB
"""Largest chunk of page-locked memory. PyTorch rounds a request up to a power of two; a few full chunks waste little.
"""


def pin(tensors: Sequence[Tensor], device: Device) -> list[Tensor]:
    """Return the tensors with their bytes in page-locked memory.

    A tensor is unchanged if there is none, or if it is larger than a chunk. Tensors that are page-locked already stay
    as they are: PyTorch keeps freed locked memory, so a copy would double it.
    """
    locked = {id(tensor): copy for tensor, copy in _locked([t for t in tensors if not _rests_locked(t)], device)}
    return [locked.get(id(tensor), tensor) for tensor in tensors]


def _rests_locked(tensor: Tensor) -> bool:
    return all(part.is_pinned() for part in plain(tensor))


def _locked(tensors: Sequence[Tensor], device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    for chunk in _chunks(tensors):
        n_bytes = sum(map(Arena.bytes_for, chunk))
        buffer = device.pinned(n_bytes) if 0 < n_bytes <= CHUNK_BYTES else None
        if buffer is not None:
            yield from zip(chunk, _copied(chunk, Arena(buffer)), strict=True)


def _copied(tensors: Sequence[Tensor], arena: Arena) -> list[Tensor]:
    return [map_storage(tensor, lambda inner: arena.like(inner).copy_(inner)) for tensor in tensors]


def _chunks(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    chunk: list[Tensor] = []
    room = CHUNK_BYTES
    for tensor in tensors:
        n_bytes = Arena.bytes_for(tensor)
        if chunk and n_bytes > room:
            yield chunk
            chunk, room = [], CHUNK_BYTES
        chunk.append(tensor)
        room -= n_bytes
    if chunk:
        yield chunk
