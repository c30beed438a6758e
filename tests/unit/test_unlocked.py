"""Where main memory cannot lock what is streamed, weights stay whole if they fit, unless the user chose otherwise."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection import Detection
from acestep.knobs import Offload, Quantization, Variant
from acestep.limits import machine
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan, resolve
from acestep.limits.unlocked import instead_of_streaming, kept_whole, streams_unlocked
from acestep.request import Request
from acestep.tiers import BATCHES, Frontier, LmStates, load_tiers
from acestep.ui.studio import Studio
from acestep.units import GIB

XL = Overrides(variant=Variant.XL_TURBO)
PLENTY, LITTLE = 64 * GIB, 1 * GIB


def card_of(gib: float) -> Card:
    return Card(kind=CardKind.CUDA, name=f"a card of {gib} GiB", total_bytes=int(gib * GIB), capability=(8, 6))


def model_of(overrides: Overrides) -> Mapping[str, float]:
    return load_tiers().variants[overrides.variant].memory_model


def planned(gib: float, overrides: Overrides, lockable: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Plan]:
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
    assert "page-lock" in whole.warnings[-1]
    streamed, still = planned(4, XL, LITTLE, monkeypatch)
    assert still.knobs == streamed.knobs
    assert still.warnings[:-1] == streamed.warnings
    assert "several times as long" in still.warnings[-1]


LIMITS = st.builds(
    lambda entries: dict(zip(map(str, BATCHES), sorted(entries, reverse=True), strict=True)),
    st.lists(st.integers(0, 600), min_size=len(BATCHES), max_size=len(BATCHES)),
)


def allowed(plan: Plan) -> list[int]:
    """The longest song of each batch, certified, and certified or predicted, without and with a language model."""
    return [
        longest(batch, lm=lm)
        for longest in (plan.frontier.longest, plan.longest)
        for batch in BATCHES
        for lm in (False, True)
    ]


def shortens(plan: Plan, other: Plan) -> bool:
    return any(ours < theirs for ours, theirs in zip(allowed(plan), allowed(other), strict=True))


@pytest.mark.parametrize("variant", Variant)
def test_no_card_gets_shorter_songs_because_main_memory_is_short(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = Overrides(variant=variant)
    for tenths in range(20, 90):
        streamed, after = planned(tenths / 10, wishes, LITTLE, monkeypatch)
        if after == streamed:
            continue
        assert not shortens(after, streamed), tenths
        whole = after.offload is Offload.CPU_DIT
        granted = machine.plan_of_card(kept_whole(wishes), card_of(tenths / 10))
        fits = granted.offload is Offload.CPU_DIT and granted.lm == streamed.lm
        assert whole is (fits and not shortens(granted, streamed)), tenths
        assert ("several times as fast" if whole else "several times as long") in after.warnings[-1]


@given(LIMITS, LIMITS, LIMITS, LIMITS, st.tuples(*[st.integers(0, 600)] * 4))
def test_whole_weights_are_taken_only_where_no_limit_is_lower(
    plain: dict[str, int], thinking: dict[str, int], plain_whole: dict[str, int], thinking_whole: dict[str, int], reach
) -> None:
    streamed = msgspec.structs.replace(
        resolve(card_of(6), load_tiers(), XL),
        frontier=Frontier(with_lm=thinking, without_lm=plain),
        reach=LmStates(with_lm=reach[0], without_lm=reach[1]),
        warnings=("of streaming",),
    )
    whole = msgspec.structs.replace(
        resolve(card_of(6), load_tiers(), kept_whole(XL)),
        frontier=Frontier(with_lm=thinking_whole, without_lm=plain_whole),
        reach=LmStates(with_lm=reach[2], without_lm=reach[3]),
        warnings=("of whole weights",),
    )
    chosen = instead_of_streaming(streamed, whole, model_of(XL), LITTLE)
    expected = streamed if shortens(whole, streamed) else whole
    assert chosen == msgspec.structs.replace(expected, warnings=chosen.warnings)
    assert chosen.warnings[:-1] == expected.warnings


@pytest.mark.parametrize(
    "request_",
    [None, *(Request(caption="rain", batch=batch, duration_s=seconds) for batch in (1, 8) for seconds in (10, 600))],
)
@pytest.mark.parametrize("gib", [4, 5, 5.2, 6, 8])
@pytest.mark.parametrize("variant", [Variant.XL_TURBO, Variant.XL_SFT])
def test_the_page_and_the_command_line_agree(
    variant: Variant, gib: float, request_: Request | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("acestep.hardware.host.lockable_bytes", lambda: LITTLE)
    found = Detection(card=card_of(gib), cards=(card_of(gib),), answers=())
    monkeypatch.setattr("acestep.serving.song_maker.look", lambda _: found)
    wishes = Overrides(variant=variant)
    studio = Studio(variant, wishes, tmp_path)
    shown, _ = studio.start()
    _, plan, refused = studio.settle(shown, request_)
    said = machine.plan_of(found, wishes, request_)
    assert plan == said
    assert set(refused) <= set(said.warnings)


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
