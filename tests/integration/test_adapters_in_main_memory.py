"""What adapters and the models beside them take of main memory is known before it is taken."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from acestep.adapters.choice import Adapter, all_unfused
from acestep.adapters.memory import memory_apart
from acestep.engine import service as service_module
from acestep.engine.service import Service
from acestep.errors import HostMemoryError
from acestep.hardware.card import simulated_card
from acestep.hardware.host import HostMemory
from acestep.knobs import Knobs
from acestep.limits.plan import exact
from acestep.units import GIB
from tests.adapters import lokr, lora
from tests.small_card import SmallCard

CARD = simulated_card(8)


@pytest.fixture
def chosen(tmp_path: Path) -> tuple[Adapter, Adapter]:
    """A LoRA and a LoKr of two layers."""
    draw = np.random.default_rng(6)
    folk = lora(tmp_path / "folk", "layers.0.cross_attn.to_v", (32, 64), draw, told="config", power=1)
    rock = lokr(tmp_path / "rock", "layers.1.mlp.up_proj", (128, 64), draw, form="w1 w2_a")
    return Adapter(path=folk.path), Adapter(path=rock.path)


def test_the_old_weights_are_freed_before_main_memory_is_looked_at(
    chosen: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both together might not fit, and the next request would find the same."""
    service = Service("tiny", here=(SmallCard(), CARD))
    kept: list[bool] = []
    monkeypatch.setattr(
        service_module, "require_room_for", lambda *_, **__: kept.append(service._kept_model._kept is not None)
    )
    try:
        for adapters in ((), chosen):
            service.preload(exact(CARD, Knobs()), think=False, notify=lambda _: None, adapters=adapters)
    finally:
        service.close()
    assert kept == [False, False]


def test_a_language_model_is_weighed_against_main_memory_beside_a_model_that_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service("tiny", here=(SmallCard(), CARD))
    asked: list[tuple[bool, bool]] = []
    monkeypatch.setattr(
        service_module,
        "require_room_for",
        lambda *_, music, language, apart_values: asked.append((music is not None, language is not None)),
    )
    plan = exact(CARD, Knobs(lm="0.6B"))
    try:
        for think in (False, True, True):
            service.preload(plan, think=think, notify=lambda _: None)
    finally:
        service.close()
    assert asked == [(True, False), (False, True)]


def test_main_memory_and_the_guard_know_the_adapters_of_each_request(
    chosen: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that is no longer named takes no memory beside the weights; one at scale 0 does."""
    both = all_unfused(chosen)
    requests = (both, both[:1], (msgspec.structs.replace(both[0], scale=0.0),), both, (both[1], both[1]), ())
    service = Service("tiny", here=(SmallCard(), CARD))
    asked: list[int] = []
    monkeypatch.setattr(service_module, "require_room_for", lambda *_, apart_values, **__: asked.append(apart_values))
    try:
        for adapters in requests:
            service.preload(exact(CARD, Knobs()), think=False, notify=lambda _: None, adapters=adapters)
            _, components, _ = service._kept_model._kept or pytest.fail("no model is loaded")
            assert components.adapter_memory == memory_apart(adapters)
    finally:
        service.close()
    attached = (requests[0], requests[1], requests[3], requests[4])
    assert asked == [sum(memory_apart(adapters).tensors) for adapters in attached]


def test_adapters_that_main_memory_has_no_room_for_are_refused(
    chosen: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, service = exact(CARD, Knobs()), Service("tiny", here=(SmallCard(), CARD))
    try:
        service.preload(plan, think=False, notify=lambda _: None)
        full = HostMemory(total_bytes=8 * GIB, available_bytes=GIB, swap_bytes=0)
        monkeypatch.setattr("acestep.checkpoints.host_memory.host_memory", lambda: full)
        with pytest.raises(HostMemoryError, match=r"The weights of the adapters need .*--lora"):
            service.preload(plan, think=False, notify=lambda _: None, adapters=all_unfused(chosen))
    finally:
        service.close()
