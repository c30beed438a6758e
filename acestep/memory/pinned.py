"""Host weights in page-locked memory, so that moves to the device run at full speed and beside computation."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from acestep.devices.base import Device
from acestep.memory.tensors import Arena, map_storage, plain
from acestep.units import MIB

CHUNK_BYTES = 128 * MIB
"""At most this much is locked at once. PyTorch rounds a request up to a power of two; few, full chunks waste little."""


def pin(tensors: Sequence[Tensor], device: Device) -> list[Tensor]:
    """The tensors with their bytes in page-locked memory; as they are where there is none, or larger than a chunk.

    Those that rest there already stay: PyTorch keeps locked memory that was given back, so a copy would double it.
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
