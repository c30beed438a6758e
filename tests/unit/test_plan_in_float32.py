"""A card without bfloat16 computes in float32, and its plan counts on that."""

from pathlib import Path

import msgspec
import pytest

from acestep.hardware.card import Card, simulated_card
from acestep.knobs import Offload
from acestep.limits.plan import on_device, resolve
from acestep.tiers import load_tiers

TABLE = load_tiers(Path(__file__).parents[1] / "fixtures" / "tiers.json")


def turing_card(size: int) -> Card:
    return msgspec.structs.replace(simulated_card(size), capability=(7, 5))


@pytest.mark.parametrize(("size", "like"), [(24, 12), (16, 8), (10, 5)])
def test_a_card_without_bfloat16_has_the_limits_of_one_of_half_its_size(size: int, like: int) -> None:
    turing, ampere = turing_card(size), simulated_card(like)
    plan, other = resolve(turing, TABLE), resolve(ampere, TABLE)
    assert plan.tier == resolve(simulated_card(size), TABLE).tier
    assert (plan.limits_of, plan.frontier, plan.offload) == (other.limits_of, other.frontier, other.offload)
    assert "float32" in plan.warnings[0]


def test_a_plan_for_another_card_says_what_a_device_without_bfloat16_makes_of_it() -> None:
    plan = resolve(simulated_card(24), TABLE)
    turing = turing_card(11)
    assert any("float32" in sentence for sentence in on_device(plan, turing).warnings)
    assert on_device(resolve(turing, TABLE), turing).warnings == resolve(turing, TABLE).warnings


def test_a_small_card_without_bfloat16_streams_its_weights() -> None:
    plan = resolve(turing_card(6), TABLE)
    assert (plan.limits_of, plan.offload) == ("tier1", Offload.STREAM)
    assert "counts as 3 GiB" in plan.warnings[1]
