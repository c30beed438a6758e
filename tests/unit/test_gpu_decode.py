"""What `tests/gpu` expects of a card that fills up is what a card of the simulation does."""

import gc

import pytest
import torch

from acestep.engine import decode as decode_stage
from acestep.engine.pipeline import Pipeline
from acestep.knobs import Knobs, Offload, Variant
from acestep.request import DecodePath
from acestep.units import GIB
from calibrate.probes.simulated.prober import full_size
from tests.gpu.wall import CAP, RUNGS, decoded_beside_a_wall, filled
from tests.integration.test_decode_ladder import LiveCard
from tests.on_a_card import REQUEST
from tests.some import first_of
from tools.work_of_a_song import weightless


@pytest.mark.parametrize(("offload", "room", "path", "steps"), RUNGS)
def test_every_rung_is_reached(
    monkeypatch: pytest.MonkeyPatch, offload: Offload, room: int, path: DecodePath, steps: int
) -> None:
    monkeypatch.setattr(decode_stage._Decoding, "_on_host", lambda run: None)
    components, card = full_size(Knobs().variant, None), LiveCard(CAP)
    # What an attempt held must be free for the next one without a garbage collection.
    gc.disable()
    try:
        with card.on():
            result = decoded_beside_a_wall(components, offload, room, card.device, lambda: card.book.allocator.reserved)
    finally:
        gc.enable()
    assert result.decode_path is path
    assert len(result.warnings) >= steps
    assert bool(result.warnings) == bool(steps), "an undisturbed song has nothing to say"


@pytest.mark.parametrize("offload", first_of(Offload, 2))
def test_beside_a_full_card_the_next_song_is_refused_and_the_one_after_it_is_made(offload: Offload) -> None:
    card = LiveCard(2 * GIB)
    with card.on():
        pipeline = Pipeline(weightless("tiny", Variant.TURBO), Knobs(offload=offload), card.device)
        pipeline.generate(REQUEST)
        gc.collect()
        walls = filled(card.device, 2 * GIB, lambda: card.book.allocator.reserved)
        with pytest.raises(torch.OutOfMemoryError):
            pipeline.generate(REQUEST, strict=True)
        walls.clear()
        gc.collect()
        pipeline.generate(REQUEST)
        pipeline.close()
