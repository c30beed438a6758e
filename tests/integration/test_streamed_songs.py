"""Wherever the weights rest and however late their copies arrive, the song is the same."""

from collections.abc import Callable

import pytest
import torch

from acestep.devices.cpu import CpuDevice
from acestep.knobs import Knobs, Offload, Quantization
from acestep.models.build import build
from acestep.pipeline import Pipeline, prepare
from acestep.request import Request
from tests.copying_cards import EagerCard, LateCard

INT8 = Quantization.INT8


@pytest.mark.parametrize(
    ("offload", "quantization", "card"),
    [
        (Offload.CPU_DIT, INT8, EagerCard),
        (Offload.STREAM, None, LateCard),
        (Offload.STREAM_ENCODERS, INT8, EagerCard),
        (Offload.STREAM_ENCODERS, None, LateCard),
    ],
)
def test_every_placement_makes_the_same_song(
    offload: Offload, quantization: Quantization | None, card: Callable[..., EagerCard]
) -> None:
    def song(where: Offload, device: CpuDevice) -> bytes:
        components, knobs = build("tiny", dtype=torch.float32), Knobs(offload=where, quantization=quantization)
        prepare(components, knobs)
        request = Request(caption="slow piano", lyrics="la la", duration_s=2, seed=5, steps=2)
        return Pipeline(components, knobs, device).generate(request).songs[0].audio.tobytes()

    assert song(offload, card(pinned_bytes=300_000)) == song(Offload.NONE, CpuDevice())
