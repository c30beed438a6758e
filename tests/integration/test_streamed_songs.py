"""Wherever the weights rest and however late their copies arrive, the song is the same."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from acestep.checkpoints.build import build
from acestep.clip import SAMPLE_RATE, Clip
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import Pipeline, prepare
from acestep.knobs import Knobs, Offload, Quantization
from acestep.memory.placement import Placement
from acestep.request import Request, Task
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


@pytest.mark.parametrize("card", [EagerCard, LateCard])
def test_a_cover_through_streamed_tokenizers_is_the_same_cover(card: Callable[..., EagerCard]) -> None:
    clip = Clip(audio=0.1 * np.random.default_rng(1).standard_normal((2, 3 * SAMPLE_RATE)).astype(np.float32))
    request = Request(caption="x", duration_s=2.5, seed=5, steps=1, task=Task.COVER, source_audio=clip)

    def song(where: Offload, device: CpuDevice) -> bytes:
        components = build("tiny", dtype=torch.float32)
        prepare(components, Knobs())
        return Pipeline(components, Knobs(offload=where), device).generate(request).songs[0].audio.tobytes()

    assert song(Offload.STREAM_ENCODERS, card()) == song(Offload.NONE, CpuDevice())


@pytest.mark.parametrize("name", ["audio_tokenizer", "audio_token_detokenizer"])
def test_the_tokenizers_hold_two_layers_and_no_more(name: str) -> None:
    components = build("tiny", dtype=torch.float32)
    module, blocks = components.modules()[name], components.blocks()
    inside = set(module.modules())
    layers = [block for block in blocks if block in inside]
    assert len(layers) >= 2
    placement = Placement(components.modules(), blocks, Offload.STREAM_ENCODERS, LateCard())
    hosts = {id(tensor) for layer in layers for tensor in layer.parameters()}
    with placement.use(name):
        assert {id(tensor) for layer in layers for tensor in layer.parameters()} == hosts, "none came in with the rest"
        with placement.use_block(layers[1]):
            assert {id(tensor) for tensor in layers[0].parameters()} <= hosts
            assert not {id(tensor) for tensor in layers[1].parameters()} & hosts
