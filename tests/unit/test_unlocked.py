"""Where main memory cannot lock what is streamed, weights stay whole if they fit, unless the user chose otherwise."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from acestep.hardware.card import Card, CardKind
from acestep.knobs import Offload, Quantization, Variant
from acestep.limits import machine
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan, resolve
from acestep.limits.unlocked import instead_of_streaming, kept_whole, streams_unlocked
from acestep.tiers import load_tiers
from acestep.units import GIB

XL = Overrides(variant=Variant.XL_TURBO)
PLENTY, LITTLE = 64 * GIB, 1 * GIB


def card_of(gib: int) -> Card:
    return Card(kind=CardKind.CUDA, name=f"a card of {gib} GiB", total_bytes=gib * GIB, capability=(8, 6))


def model_of(overrides: Overrides) -> Mapping[str, float]:
    return load_tiers().variants[overrides.variant].memory_model


def planned(gib: int, overrides: Overrides, lockable: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Plan]:
    """The plan of a card by itself, and as main memory allows it."""
    monkeypatch.setattr("acestep.hardware.host.lockable_bytes", lambda: lockable)
    plan = machine.plan_of_card(overrides, card_of(gib))
    return plan, machine._locked(plan, overrides, None)


def test_a_card_that_has_room_for_whole_weights_gets_them_and_a_smaller_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streamed, whole = planned(6, XL, LITTLE, monkeypatch)
    assert streamed.offload is Offload.STREAM
    assert (whole.offload, whole.quantization) == (Offload.CPU_DIT, Quantization.INT8)
    assert whole.longest(1, lm=False) >= 60
    assert "page-lock" in whole.warnings[-1]
    streamed, still = planned(4, XL, LITTLE, monkeypatch)
    assert still.knobs == streamed.knobs
    assert still.warnings[:-1] == streamed.warnings
    assert "several times as long" in still.warnings[-1]


@pytest.mark.parametrize(
    ("gib", "overrides", "lockable"),
    [
        (6, XL, PLENTY),
        (8, XL, LITTLE),
        (4, AS_THE_TIER_SAYS, LITTLE),
    ],
)
def test_every_other_plan_stays_as_it_is(
    gib: int, overrides: Overrides, lockable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = planned(gib, overrides, lockable, monkeypatch)
    assert after == before


def test_who_wished_to_stream_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    for wish in (
        Overrides(variant=Variant.XL_TURBO, offload=Offload.STREAM),
        Overrides(variant=Variant.XL_TURBO, quantization=None),
    ):
        before, after = planned(6, wish, LITTLE, monkeypatch)
        assert after.knobs == before.knobs
        assert len(after.warnings) == len(before.warnings) + 1


@given(st.integers(0, PLENTY), st.integers(0, PLENTY))
def test_more_main_memory_never_ends_streaming(less: int, more: int) -> None:
    plan, model = resolve(card_of(6), load_tiers(), XL), model_of(XL)
    less, more = sorted((less, more))
    assert streams_unlocked(plan, model, more) <= streams_unlocked(plan, model, less)


def test_weights_that_are_not_granted_are_not_taken() -> None:
    plan, model = resolve(card_of(4), load_tiers(), XL), model_of(XL)
    wish = kept_whole(XL)
    assert wish is not None
    assert wish.lm is UNSET
    refused = resolve(card_of(4), load_tiers(), wish)
    for answer in (refused, None):
        assert instead_of_streaming(plan, answer, model, LITTLE).knobs == plan.knobs
