"""A process that makes one request compiles where that takes less time than it saves, or where it is told to."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.engine.worth_compiling import compiled_where_it_pays
from acestep.hardware.card import simulated_card
from acestep.knobs import Quantization, Variant
from acestep.limits.machine import plan_of_card
from acestep.limits.plan import Overrides, Plan
from acestep.request import Request

LONG, SHORT = Request(caption="x", duration_s=240), Request(caption="x", duration_s=60)


def planned(overrides: Overrides = Overrides()) -> Plan:  # noqa: B008 it is immutable
    plan = plan_of_card(overrides, simulated_card(12))
    assert plan.quantization is None
    return plan


def decided(request: Request, **wishes: object) -> bool:
    overrides = Overrides(**wishes)
    return compiled_where_it_pays(planned(overrides), overrides, request).compile


def test_a_long_song_is_compiled_and_a_short_one_is_not() -> None:
    assert decided(LONG)
    assert not decided(SHORT)


@pytest.mark.parametrize("request_", [LONG, SHORT])
@pytest.mark.parametrize("wish", [True, False])
def test_who_asks_gets_it(request_: Request, wish: bool) -> None:
    assert decided(request_, compile=wish) is wish


def test_many_steps_and_guidance_count_as_more_music() -> None:
    assert decided(SHORT, variant=Variant.BASE)
    assert not decided(msgspec.structs.replace(SHORT, steps=2), variant=Variant.BASE)


def test_int8_weights_are_always_compiled() -> None:
    plan = msgspec.structs.replace(planned(), quantization=Quantization.INT8)
    assert compiled_where_it_pays(plan, Overrides(), SHORT).compile


@given(st.integers(1, 8), st.floats(10, 600), st.integers(1, 8), st.floats(10, 600))
def test_more_music_is_never_compiled_less(songs: int, seconds: float, more: int, longer: float) -> None:
    few = Request(caption="x", duration_s=min(seconds, longer), batch=min(songs, more))
    many = Request(caption="x", duration_s=max(seconds, longer), batch=max(songs, more))
    assert decided(few) <= decided(many)
