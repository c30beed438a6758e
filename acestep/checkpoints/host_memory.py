"""Weights that cannot fit into main memory are refused before the system ends the process that loads them."""

import gc
from collections.abc import Callable

from acestep.errors import HostMemoryError
from acestep.hardware.host import HostMemory, host_memory
from acestep.units import GIB, gib

BESIDE_BYTES = GIB
"""Memory of a run besides its weights: 1.05 GiB for 10 s of music on the CPU, most of it to decode the audio."""


CHOOSE_SMALLER = "choose a smaller model with --model"
CHOOSE_SMALLER_LM = "choose a smaller language model with --lm"
"""The advice for a user whose main memory is too small for the weights."""


def require_room(needed: int, what: str, instead: str, look: Callable[[], HostMemory] | None = None) -> None:
    """Raise `HostMemoryError` unless `needed` bytes of weights fit into the free main memory.

    The sentence begins with `what` and ends with `instead`, the user's alternative. 0 bytes always fit.
    """
    look = look or host_memory
    if needed == 0 or _fits(needed, look()):
        return
    # Python may not have collected the last model yet.
    gc.collect()
    memory = look()
    if not _fits(needed, memory):
        raise HostMemoryError(_sentence(needed, what, instead, memory))


def _fits(needed: int, memory: HostMemory) -> bool:
    return needed + BESIDE_BYTES <= memory.room_bytes


def _sentence(needed: int, what: str, instead: str, memory: HostMemory) -> str:
    limit = f", the limit of {memory.limited_by}" if memory.limited_by else ""
    swap = f" and {gib(memory.swap_bytes)} of swap" if memory.swap_bytes else ""
    where = "this container or session" if memory.limited_by else "this machine"
    # Closing programs does not help if more is needed than the machine has.
    too_small = needed + BESIDE_BYTES > memory.total_bytes + memory.swap_bytes
    first = f"give {where} more memory" if too_small else "close other programs"
    return (
        f"{what} need {gib(needed)} of main memory and a run {gib(BESIDE_BYTES)} besides, but"
        f" {gib(memory.available_bytes)}{swap} are free of {gib(memory.total_bytes)}{limit}; {first}, or {instead}"
    )
