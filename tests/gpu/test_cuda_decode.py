"""On a real card that fills up before decoding: real out-of-memory errors go down the ladder to the same song."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from acestep.devices.cuda import CudaDevice
from acestep.knobs import Knobs, Offload
from acestep.models.components import Components
from acestep.pipeline import Pipeline
from acestep.request import DecodePath, Request, Result
from acestep.units import GIB, MIB
from tests.on_a_card import distance, loaded

pytestmark = pytest.mark.gpu

SONG = Request(caption="slow piano", lyrics="la la", duration_s=40, seed=3, steps=2)
CAP = 8 * GIB
LARGE_TILE = 1024


@pytest.fixture(scope="module")
def components() -> Components:
    return loaded(CudaDevice(), Knobs(), "dummy")


@pytest.fixture(scope="module")
def undisturbed(components: Components) -> np.ndarray:
    return _decoded(components, Offload.CPU_DIT, CAP).songs[0].audio


@pytest.fixture(autouse=True)
def _uncapped_afterwards() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)


def _decoded(components: Components, offload: Offload, room: int) -> Result:
    """A song whose decoder finds only `room` bytes, in tiles that were chosen before the card filled up."""
    device = CudaDevice(CAP)
    walls: list[torch.Tensor] = []

    def fill(stage: str, done: int, total: int) -> None:
        if stage == "denoise" and done == total:
            device.empty_cache()
            spare = CAP - torch.cuda.memory_reserved() - room
            if spare > 0:
                walls.append(torch.empty(spare, dtype=torch.uint8, device=device.torch_device))

    pipeline = Pipeline(components, Knobs(offload=offload), device, vae_chunk=LARGE_TILE)
    try:
        return pipeline.generate(SONG, progress=fill)
    finally:
        pipeline.close()


@pytest.mark.parametrize(
    ("offload", "room", "path", "steps"),
    [
        (Offload.CPU_DIT, CAP, DecodePath.GPU, 0),
        (Offload.CPU_DIT, 1100 * MIB, DecodePath.GPU, 1),
        (Offload.CPU_DIT, 100 * MIB, DecodePath.CPU, 1),
        (Offload.NONE, 60 * MIB, DecodePath.GPU_OFFLOAD, 2),
    ],
)
def test_every_rung_is_reached_by_real_errors_and_sounds_the_same(
    components: Components, undisturbed: np.ndarray, offload: Offload, room: int, path: DecodePath, steps: int
) -> None:
    result = _decoded(components, offload, room)
    assert result.decode_path is path
    assert len(result.warnings) >= steps
    # The processor decodes in float32 and the card in half precision; tiles of other sizes sum in another order.
    assert distance(result.songs[0].audio, undisturbed) < 0.05


def test_what_failed_leaves_nothing_behind(components: Components) -> None:
    device = CudaDevice()
    before = device.allocated_bytes()
    _decoded(components, Offload.NONE, 60 * MIB)
    assert device.allocated_bytes() <= before + 64 * MIB, "nothing but workspaces stays"
