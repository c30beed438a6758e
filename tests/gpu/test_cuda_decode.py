"""On a real card that fills up before decoding: real out-of-memory errors use the fallbacks and give the same song."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from acestep.checkpoints.components import Components
from acestep.devices.accelerator import CudaDevice
from acestep.knobs import Knobs, Offload
from acestep.request import DecodePath
from acestep.result import Result
from acestep.units import MIB
from tests.gpu.wall import CAP, RUNGS, decoded_beside_a_wall
from tests.on_a_card import distance, loaded

pytestmark = pytest.mark.gpu


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
    return decoded_beside_a_wall(components, offload, room, CudaDevice(CAP), torch.cuda.memory_reserved)


@pytest.mark.parametrize(("offload", "room", "path", "steps"), RUNGS)
def test_every_fallback_is_reached_by_real_errors_and_gives_the_same_audio(
    components: Components,
    undisturbed: np.ndarray,
    offload: Offload,
    room: int,
    path: DecodePath,
    steps: int,
    computes: bool,
) -> None:
    result = _decoded(components, offload, room)
    assert result.decode_path is path
    assert len(result.warnings) >= steps
    # The processor decodes in float32 and the card in half precision; tiles of other sizes sum in another order.
    if computes:
        assert distance(result.songs[0].audio, undisturbed) < 0.05


def test_what_failed_leaves_nothing_behind(components: Components) -> None:
    device = CudaDevice()
    before = device.allocated_bytes()
    _decoded(components, Offload.NONE, 60 * MIB)
    assert device.allocated_bytes() <= before + 64 * MIB, "nothing but workspaces stays"
