"""What `tests/gpu` expects of a card that fills up before decoding is what a card of the simulation does."""

import pytest

from acestep.knobs import Knobs, Offload
from acestep.request import DecodePath
from acestep.stages import decode as decode_stage
from calibrate.probes.simulated.prober import full_size
from tests.gpu.wall import CAP, RUNGS, decoded_beside_a_wall
from tests.integration.test_decode_ladder import LiveCard


@pytest.mark.parametrize(("offload", "room", "path", "steps"), RUNGS)
def test_every_rung_is_reached(
    monkeypatch: pytest.MonkeyPatch, offload: Offload, room: int, path: DecodePath, steps: int
) -> None:
    monkeypatch.setattr(decode_stage._Decoding, "_on_host", lambda run: None)
    components, card = full_size(Knobs().variant, None), LiveCard(CAP)
    with card.on():
        result = decoded_beside_a_wall(components, offload, room, card.device, lambda: card.book.allocator.reserved)
    assert result.decode_path is path
    assert len(result.warnings) >= steps
    assert bool(result.warnings) == bool(steps), "an undisturbed song has nothing to say"
