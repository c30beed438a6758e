"""The settings of the page: what they show is the plan, and what they wish for is granted or put back with a reason."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.hardware.card import CPU, Card, CardKind, simulated_card
from acestep.knobs import LM_MODELS, Attention, Backend, Knobs, Offload, Quantization, Variant
from acestep.limits.plan import Overrides, Plan, clamp, resolve
from acestep.request import Request
from acestep.tiers import BATCHES, TierTable, load_tiers
from acestep.ui.settings import (
    NONE,
    THIS_CARD,
    Controls,
    cards,
    controls_from,
    controls_of,
    limits_of,
    overrides_of,
    settings_of,
)

FIXTURE = load_tiers(Path(__file__).parents[1] / "fixtures" / "tiers.json")
TABLES = (load_tiers(), FIXTURE)
APPLE = simulated_card(24, CardKind.MPS)
WEIGHTS = (NONE, *Quantization)

anything = st.builds(
    Controls,
    init_lm=st.booleans(),
    lm=st.sampled_from(("", *LM_MODELS)),
    backend=st.sampled_from(tuple(Backend)),
    offload_cpu=st.booleans(),
    offload_dit=st.booleans(),
    offload_stream=st.sampled_from((NONE, Offload.STREAM, Offload.STREAM_ENCODERS)),
    quantization=st.sampled_from(WEIGHTS),
    lm_quantization=st.sampled_from(WEIGHTS),
    attention=st.sampled_from(tuple(Attention)),
    compile=st.booleans(),
)
any_card = st.one_of(
    st.sampled_from((CPU, APPLE)),
    st.builds(simulated_card, st.sampled_from((2, 4, 5, 6, 7, 8, 11.6, 12, 16, 20, 24, 80))),
)


def start(card: Card, table: TierTable, variant: Variant = Variant.TURBO) -> tuple[Controls, Plan]:
    plan = resolve(card, table, Overrides(variant=variant))
    return controls_of(plan, tier=THIS_CARD, init_lm=plan.init_lm), plan


def settle(wish: Controls, card: Card, table: TierTable, variant: Variant = Variant.TURBO) -> tuple[Controls, Plan]:
    plan = resolve(card, table, overrides_of(wish, variant))
    return controls_of(plan, tier=wish.tier, init_lm=wish.init_lm), plan


@pytest.mark.parametrize("table", TABLES, ids=["generated", "fixture"])
@pytest.mark.parametrize("variant", list(Variant))
def test_the_settings_of_every_tier_wish_for_nothing_but_its_own_plan(table: TierTable, variant: Variant) -> None:
    for card in (*cards(table, variant, CPU).values(), APPLE):
        controls, plan = start(card, table, variant)
        again, settled = settle(controls, card, table, variant)
        assert settled == plan
        assert again == controls


@pytest.mark.parametrize("table", TABLES, ids=["generated", "fixture"])
@given(wish=anything, card=any_card)
def test_what_a_wish_comes_down_to_is_granted_as_a_whole(table: TierTable, wish: Controls, card: Card) -> None:
    controls, plan = settle(wish, card, table)
    again, settled = settle(controls, card, table)
    assert again == controls
    assert settled.knobs == plan.knobs
    assert set(settled.warnings) <= set(start(card, table)[1].warnings)


@given(wish=anything, card=any_card, table=st.sampled_from(TABLES))
def test_a_wish_that_was_put_back_has_a_sentence(wish: Controls, card: Card, table: TierTable) -> None:
    controls, plan = settle(wish, card, table)
    usual = start(card, table)[1]
    wished = overrides_of(wish, Variant.TURBO)
    granted = all(getattr(wished, name) == getattr(plan, name) for name in Knobs.__struct_fields__)
    assert granted or set(plan.warnings) > set(usual.warnings) or len(plan.warnings) > len(usual.warnings)
    assert controls.init_lm == (wish.init_lm and plan.lm is not None)


@given(wish=anything, card=any_card, table=st.sampled_from(TABLES))
def test_every_control_is_set_to_one_of_its_choices(wish: Controls, card: Card, table: TierTable) -> None:
    tiers = tuple(cards(table, Variant.TURBO, card))
    controls, plan = settle(wish, card, table)
    shown = settings_of(controls, plan, tiers)
    assert set(shown) == set(Controls.__struct_fields__)
    for name, setting in shown.items():
        assert setting.value == getattr(controls, name)
        if not isinstance(setting.value, bool):
            assert setting.value in setting.choices or (name == "lm" and setting.value == "")
    assert shown["lm"].choices == plan.lm_models
    assert shown["backend"].choices == plan.backends_allowed


def test_the_box_of_the_language_model_is_on_offered_or_dead_as_the_tier_says() -> None:
    seen = set()
    for table in TABLES:
        for tier in table.variants[Variant.TURBO].tiers:
            controls, plan = start(simulated_card(tier.certified_gib), table)
            box = settings_of(controls, plan, ())["init_lm"]
            assert box.interactive == bool(plan.lm_models)
            assert box.value == tier.init_lm
            seen.add((box.value, box.interactive))
    assert seen == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("offload", list(Offload))
def test_each_offload_has_its_boxes(offload: Offload) -> None:
    plan = msgspec.structs.replace(start(simulated_card(24), FIXTURE)[1], offload=offload)
    controls = controls_of(plan, tier=THIS_CARD, init_lm=False)
    boxes = (controls.offload_cpu, controls.offload_dit, controls.offload_stream)
    assert (
        boxes
        == {
            Offload.NONE: (False, False, NONE),
            Offload.CPU: (True, False, NONE),
            Offload.CPU_DIT: (True, True, NONE),
            Offload.STREAM: (True, True, "stream"),
            Offload.STREAM_ENCODERS: (True, True, "stream+encoders"),
        }[offload]
    )
    assert overrides_of(controls, Variant.TURBO).offload is offload


def test_the_second_box_goes_with_the_first() -> None:
    off = overrides_of(Controls(offload_cpu=False, offload_dit=True), Variant.TURBO)
    assert off.offload is Offload.NONE


@pytest.mark.parametrize("card", [CPU, APPLE], ids=["cpu", "apple"])
def test_without_movable_weights_there_is_no_offload_control(card: Card) -> None:
    shown = settings_of(*start(card, TABLES[0]), ())
    for name in ("offload_cpu", "offload_dit", "offload_stream", "quantization", "lm_quantization"):
        assert not shown[name].interactive


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backend": "steam"}, "backend"),
        ({"lm": "9B"}, "language model"),
        ({"offload_stream": "sideways"}, "offload"),
        ({"quantization": "int3"}, "quantization"),
        ({"compile": "yes"}, "compile"),
        ({"tier": 3}, "tier"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_setting_that_there_is_not_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        overrides_of(controls_from(values), Variant.TURBO)


@settings(max_examples=300)
@given(
    card=any_card,
    table=st.sampled_from(TABLES),
    think=st.booleans(),
    batch=st.integers(1, 64),
    duration_s=st.integers(1, 3_600),
)
def test_within_both_sliders_nothing_is_cut_and_beyond_their_ends_it_is(
    card: Card, table: TierTable, think: bool, batch: int, duration_s: int
) -> None:
    plan = start(card, table)[1]
    lm = think and plan.lm is not None
    limits = limits_of(plan, think=think, batch=batch, duration_s=duration_s)
    assert limits.batch == min(batch, limits.max_batch)
    assert limits.duration_s == min(duration_s, limits.max_duration_s)
    assert limits.can_think == (plan.lm is not None)
    if not plan.longest(1, lm=lm):
        assert limits.max_batch == 1
        return
    inside = Request(caption="x", batch=limits.batch, duration_s=limits.duration_s)
    assert clamp(inside, plan, lm=lm)[0] == inside
    assert _cuts(plan, limits.batch, limits.max_duration_s + 1, lm=lm)
    assert _cuts(plan, max(BATCHES) + 1, 1, lm=lm)


def _cuts(plan: Plan, batch: int, duration_s: float, *, lm: bool) -> tuple[str, ...]:
    return clamp(Request(caption="x", batch=batch, duration_s=duration_s), plan, lm=lm)[1]


def test_a_length_that_is_left_open_stays_open() -> None:
    plan = start(simulated_card(8), TABLES[0])[1]
    assert limits_of(plan, think=True, batch=3, duration_s=0).duration_s == 0
