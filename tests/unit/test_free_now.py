"""With little free memory more is offloaded, as long as that is so; with room again the plan is the tier's own."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import acestep.engine.service as service_module
from acestep.engine.service import Service
from acestep.hardware.card import Card, CardKind, simulated_card
from acestep.hardware.detection.nvml import free_now
from acestep.knobs import KNOBS, Knobs, Offload, Variant
from acestep.limits.free_now import fit_now
from acestep.limits.guard import COEFFICIENTS
from acestep.limits.plan import Overrides, exact, resolve
from acestep.limits.room import needed_bytes, question_of
from acestep.request import Request
from acestep.tiers import data_file, load_tiers
from acestep.units import GIB, MIB
from tests import acestep_command
from tests.acestep_command import Command
from tests.small_card import SmallCard
from tests.some import first_of

command = acestep_command.command

TABLE = load_tiers()
SONG = Request(caption="rain", duration_s=1, seed=3, steps=1)


@given(
    size=st.sampled_from((4, 6, 8, 12, 16, 24)),
    variant=st.sampled_from(list(Variant)),
    free=st.lists(st.integers(0, 24 * 1024), min_size=2, max_size=2).map(sorted),
    seconds=st.floats(1, 600),
    thinks=st.booleans(),
)
def test_more_room_never_means_more_offload_and_what_is_used_fits_if_anything_does(
    size: int, variant: Variant, free: list[int], seconds: float, thinks: bool
) -> None:
    plan = resolve(simulated_card(size), TABLE, Overrides(variant=variant))
    model = TABLE.variants[variant].memory_model
    question = question_of(Request(caption="x", duration_s=seconds), plan.card, plan.variant, thinks=thinks)
    scarce, roomy = (fit_now(plan, question, model, n * MIB) for n in free)
    rank = KNOBS["offload"].rank
    assert rank(scarce.offload) >= rank(roomy.offload) >= rank(plan.offload)
    for found, room in ((scarce, free[0]), (roomy, free[1])):
        assert (found.warnings == plan.warnings) == (found.offload is plan.offload)
        needs = {
            offload: needed_bytes(model, msgspec.structs.replace(plan.knobs, offload=offload), question) or 0
            for offload in Offload
            if rank(offload) >= rank(plan.offload)
        }
        if min(needs.values()) <= room * MIB:
            assert needs[found.offload] <= room * MIB


def test_a_plan_without_a_prediction_is_left_alone() -> None:
    plan = resolve(simulated_card(4), TABLE)
    assert fit_now(plan, question_of(SONG, plan.card, plan.variant, thinks=False), {}, 0) is plan


MODEL = {
    f"none.{offload}.{name}": float(
        {"rest": 0, "encode": size, "denoise.fixed": size, "decode": size}.get(name, 0) * MIB
    )
    for offload, size in zip(Offload, (3_000, 2_000, 1_000, 500, 400), strict=True)
    for name in COEFFICIENTS
}
"""A card on which every mode of offload needs less than the one before."""


@pytest.mark.parametrize(
    ("free", "used"), first_of([(5_000, "cpu"), (100, "stream+encoders"), (7_000, "none"), (3_000, "cpu+dit")], 2)
)
def test_a_service_takes_the_next_offload_and_takes_it_back(
    free: int, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "memory_model_of", lambda components, plan: MODEL)
    card = simulated_card(8)
    device = SmallCard(free_bytes=free * MIB)
    service = Service("tiny", here=(device, card))
    plan = exact(card, Knobs(offload=Offload.NONE))
    try:
        result, carried = service.generate(SONG, plan)
        assert carried.offload == used
        assert sum("free now" in sentence for sentence in result.warnings) == (used != "none")
        device.free = 8 * GIB
        result, carried = service.generate(SONG, plan)
        assert carried.offload is Offload.NONE
        assert not any("free now" in sentence for sentence in result.warnings)
    finally:
        service.close()


def test_what_the_service_itself_holds_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "memory_model_of", lambda components, plan: MODEL)
    seen: list[int] = []

    def looked(plan: Any, question: Any, model: Any, free_bytes: int) -> Any:
        seen.append(free_bytes)
        return plan

    monkeypatch.setattr(service_module, "fit_now", looked)
    card = simulated_card(8)
    service = Service("tiny", here=(SmallCard(free_bytes=GIB), card))
    plan = exact(card, Knobs(offload=Offload.NONE))
    try:
        for _ in range(2):
            service.generate(SONG, plan)
        _, components, _ = service._kept_model._kept or pytest.fail("no model is loaded")
        weights = sum(
            tensor.nbytes
            for module in components.modules().values()
            for tensor in (*module.parameters(), *module.buffers())
            if isinstance(tensor, torch.Tensor)
        )
    finally:
        service.close()
    assert seen[0] == GIB
    assert GIB + weights <= seen[1] <= GIB + 2 * weights + MIB


def test_the_driver_says_what_is_free_and_none_where_it_does_not() -> None:
    card = Card(kind=CardKind.CUDA, name="x", uuid="GPU-1", total_bytes=8 * GIB, capability=(8, 6))
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(free=5 * GIB if handle == "GPU-1" else 0),
    )
    assert free_now(card, nvml) == 5 * GIB
    assert free_now(simulated_card(8), nvml) is None
    assert free_now(card, SimpleNamespace(nvmlInit=lambda: None)) is None


def test_the_plan_command_takes_what_is_free(command: Command) -> None:
    document = command("plan", "--vram", "4", "--free", "1.5", "--json", table=data_file("generated_tiers.json"))
    plan = msgspec.json.decode(document.out)
    assert plan["offload"] == "stream"
    assert any("1.50 GiB" in sentence for sentence in plan["warnings"])
