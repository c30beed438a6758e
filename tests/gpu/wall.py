"""Fills a card just before decoding, or before a song, for any device.

`test_cuda_decode.py` and `test_cuda_songs.py` use it on a real card, `tests/unit/test_gpu_decode.py` on a simulated
one.
"""

from collections.abc import Callable
from contextlib import suppress

import torch

from acestep.checkpoints.components import Components
from acestep.devices.base import Device
from acestep.engine.pipeline import Pipeline
from acestep.knobs import Knobs, Offload
from acestep.request import DecodePath, Request
from acestep.result import Result
from acestep.units import GIB, MIB

SONG = Request(caption="slow piano", lyrics="la la", duration_s=40, seed=3, steps=2)
CAP = 8 * GIB
LARGE_TILE = 1024

RUNGS = [
    (Offload.CPU_DIT, CAP, DecodePath.GPU, 0),
    (Offload.CPU_DIT, 1100 * MIB, DecodePath.GPU, 1),
    (Offload.CPU_DIT, 100 * MIB, DecodePath.CPU, 1),
    (Offload.NONE, 60 * MIB, DecodePath.GPU_OFFLOAD, 2),
]
"""How the weights rest, the room that the wall leaves, where the song is decoded, and at least how many warnings."""


def filled(device: Device, cap: int, reserved: Callable[[], int]) -> list[torch.Tensor]:
    """Leaves only small fragments of the cap free: not even a tiny song fits."""
    device.empty_cache()
    # Not of what is free: that counts the gaps in the segments that weights keep, where one wall cannot stand.
    walls = [torch.empty(cap - reserved() - 4 * MIB, dtype=torch.uint8, device=device.torch_device)]
    # A tiny song would fit into those gaps. Blocks of this size come from the same segments as its own.
    with suppress(torch.OutOfMemoryError):
        while True:
            walls.append(torch.empty(2 * MIB, dtype=torch.uint8, device=device.torch_device))
    return walls


def decoded_beside_a_wall(
    components: Components, offload: Offload, room: int, device: Device, reserved: Callable[[], int]
) -> Result:
    """A song whose decoder finds only `room` bytes of `CAP`, in tiles that were chosen before the card filled up.

    The memory is taken as the stage begins: earlier the transformer may still be on the card, and free memory when it
    leaves.
    """
    walls: list[torch.Tensor] = []
    begun: list[str] = []

    def fill(stage: str, done: int, total: int) -> None:
        # Progress is told between tiles too: only the first one begins the stage.
        if stage == "decode" and stage not in begun:
            begun.append(stage)
            device.empty_cache()
            spare = CAP - reserved() - room
            if spare > 0:
                walls.append(torch.empty(spare, dtype=torch.uint8, device=device.torch_device))

    pipeline = Pipeline(components, Knobs(offload=offload), device, vae_chunk=LARGE_TILE)
    try:
        return pipeline.generate(SONG, progress=fill)
    finally:
        pipeline.close()
