"""Bytes of adapters that stay apart from the weights, on a card. Pure."""

from acestep.adapter_memory import AdapterMemory
from acestep.knobs import STREAMING, Offload
from acestep.limits.workspace import segment_bytes, small_segment_bytes, up_to_grain
from acestep.units import ceil_div

_GRAIN = 512
"""Bytes of which an allocation is a multiple."""

_STREAM_BUFFERS = 2
"""Blocks of streamed weights that are on the card at a time (`acestep.memory.ring`)."""


def adapter_bytes(memory: AdapterMemory, offload: Offload, itemsize: int) -> int:
    """Return the bytes that adapters take while songs are denoised, in numbers of `itemsize` bytes."""
    if offload in STREAMING:
        largest = max((_sum(block, itemsize) for block in memory.blocks), default=0)
        return _STREAM_BUFFERS * up_to_grain(largest) + _segments(memory.others, itemsize)
    return _segments(memory.tensors, itemsize)


def resting_adapter_bytes(memory: AdapterMemory, offload: Offload, itemsize: int) -> int:
    """Return the bytes that adapters take between stages: they are where the transformer is."""
    return adapter_bytes(memory, offload, itemsize) if offload in (Offload.NONE, Offload.CPU) else 0


def _segments(tensors: tuple[int, ...], itemsize: int) -> int:
    sizes = [_sum((values,), itemsize) for values in tensors]
    return segment_bytes(sizes) + small_segment_bytes(sizes)


def _sum(tensors: tuple[int, ...], itemsize: int) -> int:
    return sum(ceil_div(values * itemsize, _GRAIN) * _GRAIN for values in tensors)
