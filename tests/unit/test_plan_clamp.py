"""A request above what a plan promises is cut with a warning, and never more than it must be."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from acestep.hardware.card import Card, simulated_card
from acestep.knobs import Knobs
from acestep.limits.plan import Plan, clamp, exact, resolve
from acestep.request import Request
from tests.planned import TABLE, cards, knob_wishes, plans

requests = st.builds(
    Request, caption=st.just("piano"), duration_s=st.floats(1, 600), batch=st.integers(1, 64), seed=st.just(3)
)


@given(requests, plans, st.booleans())
def test_a_clamped_request_is_within_the_frontier_and_never_more_than_was_asked(
    asked: Request, plan: Plan, lm: bool
) -> None:
    clamped, _ = clamp(asked, plan, lm=lm)
    thinks = lm and plan.lm is not None
    assert clamped.duration_s <= plan.frontier.longest(clamped.batch, lm=thinks)
    assert clamped.duration_s <= asked.duration_s
    assert clamped.batch <= asked.batch
    assert clamped == msgspec.structs.replace(asked, duration_s=clamped.duration_s, batch=clamped.batch)


@given(requests, plans, st.booleans())
def test_a_clamp_cuts_no_more_than_it_must_the_duration_first(asked: Request, plan: Plan, lm: bool) -> None:
    clamped, _ = clamp(asked, plan, lm=lm)
    thinks = lm and plan.lm is not None
    assert clamped.duration_s == min(asked.duration_s, plan.frontier.longest(1, lm=thinks))
    if clamped.batch < asked.batch:
        assert plan.frontier.longest(clamped.batch + 1, lm=thinks) < clamped.duration_s


@given(requests, plans, st.booleans())
def test_a_clamp_warns_exactly_where_it_cuts_and_once_is_enough(asked: Request, plan: Plan, lm: bool) -> None:
    clamped, warnings = clamp(asked, plan, lm=lm)
    cuts = (clamped.duration_s != asked.duration_s) + (clamped.batch != asked.batch)
    assert len(warnings) == cuts
    for sentence in warnings:
        assert plan.limits_of in sentence
        assert plan.evidence["frontier"].kind in sentence
    assert clamp(clamped, plan, lm=lm) == (clamped, ())


def test_a_card_nothing_is_certified_on_tries_one_song_and_says_so() -> None:
    nothing = {"1": 0, "2": 0, "4": 0, "8": 0}
    plan = resolve(simulated_card(8), TABLE)
    plan = msgspec.structs.replace(
        plan, frontier=msgspec.structs.replace(plan.frontier, with_lm=nothing, without_lm=nothing)
    )
    clamped, warnings = clamp(Request(caption="x", duration_s=30, batch=4), plan, lm=False)
    assert (clamped.duration_s, clamped.batch, len(warnings)) == (30, 1, 1)
    clamped, warnings = clamp(Request(caption="x", duration_s=3_600), plan, lm=False)
    assert (clamped.duration_s, len(warnings)) == (600, 1)
    assert "10 min" in warnings[0]


@given(cards, st.builds(Knobs, **knob_wishes))
def test_an_exact_plan_is_its_knobs_and_cuts_no_request_a_frontier_knows(card: Card, knobs: Knobs) -> None:
    plan = exact(card, knobs)
    assert (plan.knobs, plan.card, plan.warnings) == (knobs, card, ())
    request = Request(caption="x", duration_s=600, batch=8)
    assert clamp(request, plan, lm=True) == (request, ())
