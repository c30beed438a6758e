"""Songs on a card that other programs fill up: real out-of-memory errors of PyTorch, and every fallback after them."""

from collections.abc import Callable

import pytest
import torch

from acestep.checkpoints.components import Components
from acestep.devices.accelerator import CudaDevice
from acestep.engine.pipeline import Pipeline
from acestep.knobs import Knobs, Offload
from acestep.request import DecodePath, Request
from acestep.result import Result
from acestep.units import MIB
from tests.gpu.wall import LARGE_TILE
from tests.on_a_card import require_nothing_left
from virtual_card.controls import Control, Controls

FAILS_ALWAYS = 1 << 30


def leave_free(controls: Controls, room: int) -> None:
    """Others take the card but for `room` bytes; nothing is cached afterwards."""
    torch.cuda.empty_cache()
    controls.set(Control.OTHERS_BYTES, 0)
    controls.set(Control.OTHERS_BYTES, max(0, torch.cuda.mem_get_info(0)[0] - room))


def song(
    components: Components, offload: Offload, at: str, fill: Callable[[], None], *, batch: int = 1, seconds: int = 40
) -> Result:
    """Songs while which others fill the card, as soon as a stage begins."""
    begun: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == at and stage not in begun:
            begun.append(stage)
            fill()

    request = Request(caption="rain", duration_s=seconds, steps=2, batch=batch)
    pipeline = Pipeline(components, Knobs(offload=offload), CudaDevice(), vae_chunk=LARGE_TILE)
    try:
        return pipeline.generate(request, progress=progress)
    finally:
        pipeline.close()


@pytest.mark.parametrize(
    ("offload", "seconds", "room", "path", "warnings"),
    [
        (Offload.CPU_DIT, 40, 1100 * MIB, DecodePath.GPU, 1),
        # The processor really computes, so its song is short.
        (Offload.CPU_DIT, 2, 100 * MIB, DecodePath.CPU, 1),
        (Offload.NONE, 40, 60 * MIB, DecodePath.GPU_OFFLOAD, 2),
        (Offload.STREAM, 40, 1100 * MIB, DecodePath.GPU, 1),
    ],
)
def test_others_that_come_before_decoding_lead_to_the_next_fallback(
    components: Components,
    controls: Controls,
    offload: Offload,
    seconds: int,
    room: int,
    path: DecodePath,
    warnings: int,
) -> None:
    result = song(components, offload, "decode", lambda: leave_free(controls, room), seconds=seconds)
    assert result.decode_path is path
    assert len(result.warnings) >= warnings


def test_others_that_fill_the_card_before_denoising_leave_room_for_fewer_songs_or_for_streaming(
    components: Components, controls: Controls
) -> None:
    taken = iter([1500 * MIB])

    def fill() -> None:
        for room in taken:
            leave_free(controls, room)

    result = song(components, Offload.CPU_DIT, "denoise", fill, batch=2)
    assert len(result.songs) == 2
    assert result.warnings


@pytest.mark.parametrize("offload", [Offload.NONE, Offload.CPU_DIT, Offload.STREAM])
def test_twenty_songs_and_refused_ones_leave_the_same_bytes(controls: Controls, offload: Offload) -> None:
    # A tiny model's weights are page-locked as on any card.
    controls.set(Control.REFUSE_PAGE_LOCKING, 0)
    device = CudaDevice()

    def held() -> int:
        for control in (Control.FAIL_ALLOCATION, Control.FAIL_ALLOCATION_TIMES):
            controls.set(control, 0)
        torch.cuda.synchronize()
        return device.allocated_bytes()

    def refuse() -> None:
        device.empty_cache()
        controls.set(Control.FAIL_ALLOCATION_TIMES, FAILS_ALWAYS)
        controls.set(Control.FAIL_ALLOCATION, 1)

    require_nothing_left(device, offload, held, refuse)
