"""A card without bfloat16 makes songs of turbo in float16, and others in float32, and its plan counts on that."""

from pathlib import Path

import msgspec
import pytest

from acestep.hardware.card import Card, simulated_card
from acestep.knobs import Offload, Variant
from acestep.limits.capabilities import itemsize_of, songs_in_float16, songs_in_float32
from acestep.limits.plan import Overrides, on_device, resolve
from acestep.tiers import load_tiers

FIXTURE = load_tiers(Path(__file__).parents[1] / "fixtures" / "tiers.json")
TABLE = msgspec.structs.replace(FIXTURE, variants=FIXTURE.variants | {Variant.BASE: FIXTURE.variants[Variant.TURBO]})
BASE = Overrides(variant=Variant.BASE)


def turing_card(size: int) -> Card:
    return msgspec.structs.replace(simulated_card(size), capability=(7, 5))


@pytest.mark.parametrize(("size", "like"), [(24, 12), (16, 8), (10, 5)])
def test_a_card_without_bfloat16_has_the_limits_of_one_of_half_its_size(size: int, like: int) -> None:
    turing, ampere = turing_card(size), simulated_card(like)
    plan, other = resolve(turing, TABLE, BASE), resolve(ampere, TABLE, BASE)
    assert plan.tier == resolve(simulated_card(size), TABLE, BASE).tier
    assert (plan.limits_of, plan.frontier, plan.offload) == (other.limits_of, other.frontier, other.offload)
    assert "float32" in plan.warnings[0]


def test_a_plan_for_another_card_says_what_a_device_without_bfloat16_makes_of_it() -> None:
    plan = resolve(simulated_card(24), TABLE, BASE)
    turing = turing_card(11)
    assert any("float32" in sentence for sentence in on_device(plan, turing).warnings)
    assert on_device(resolve(turing, TABLE, BASE), turing).warnings == resolve(turing, TABLE, BASE).warnings


def test_a_small_card_without_bfloat16_streams_its_weights() -> None:
    plan = resolve(turing_card(6), TABLE, BASE)
    assert (plan.limits_of, plan.offload) == ("tier1", Offload.STREAM)
    assert "counts as 3 GiB" in plan.warnings[1]


@pytest.mark.parametrize("size", [4, 6, 8, 12, 16, 24])
def test_turbo_has_the_limits_of_the_cards_own_size_without_a_language_model(size: int) -> None:
    table = load_tiers()
    plan, other = resolve(turing_card(size), table), resolve(simulated_card(size), table)
    assert (plan.tier, plan.limits_of, plan.offload) == (other.tier, other.limits_of, other.offload)
    assert plan.frontier.without_lm == other.frontier.without_lm
    assert set(plan.lm_models) <= set(other.lm_models), "language models run in float32 there"
    for batch, seconds in plan.frontier.with_lm.items():
        assert seconds <= other.frontier.with_lm[batch]
    if plan.lm != other.lm:
        assert any("language models run in float32" in sentence for sentence in plan.warnings)


@pytest.mark.parametrize("variant", [variant for variant in Variant if variant is not Variant.TURBO])
def test_only_turbo_is_made_in_float16(variant: Variant) -> None:
    turing = turing_card(16)
    assert songs_in_float16(turing, Variant.TURBO)
    assert songs_in_float32(turing, variant)
    assert (itemsize_of(turing, variant), itemsize_of(turing, Variant.TURBO), itemsize_of(turing)) == (4, 2, 4)
    assert not songs_in_float16(simulated_card(16), Variant.TURBO)
