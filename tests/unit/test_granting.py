"""A wish is granted where the request is predicted to fit, and refused with the numbers where it is not."""

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from acestep.evidence import EvidenceKind
from acestep.hardware.card import Card, simulated_card
from acestep.knobs import LM_MODELS, Backend, Offload, Quantization, Variant
from acestep.limits.plan import Overrides, clamp, resolve
from acestep.limits.room import needed_bytes, question_of, songs_room
from acestep.request import Request
from acestep.tiers import load_tiers
from calibrate.table.policy import budget_bytes, load_policy

TABLE = load_tiers()
SIZES = (4, 5, 6, 7, 8, 10, 11, 12, 16, 20, 24, 32, 48)

wishes = st.fixed_dictionaries(
    {"variant": st.sampled_from(list(Variant))},
    optional={
        "lm": st.sampled_from((None, *LM_MODELS)),
        "offload": st.sampled_from(list(Offload)),
        "quantization": st.sampled_from((None, Quantization.INT8)),
        "lm_quantization": st.sampled_from((None, Quantization.INT8)),
        "backend": st.sampled_from((Backend.PT, Backend.VLLM)),
    },
)
requests = st.builds(
    Request,
    caption=st.just("rain"),
    lyrics=st.sampled_from(("", "la " * 900)),
    duration_s=st.floats(1, 600),
    batch=st.integers(1, 16),
    think=st.booleans(),
    seed=st.just(3),
)
capabilities = st.sampled_from(((7, 5), (8, 6), (9, 0)))


def card_of(size: float, capability: tuple[int, int] = (8, 6)) -> Card:
    return msgspec.structs.replace(simulated_card(size), capability=capability)


@pytest.mark.parametrize("size", SIZES)
def test_songs_have_the_room_that_tiers_are_certified_with(size: int) -> None:
    room, budget = songs_room(simulated_card(size), TABLE), budget_bytes(size, load_policy())
    if size in load_policy().certified_sizes_gib:
        assert room == budget
    assert 0.95 * budget <= room <= budget


@settings(max_examples=300)
@given(size=st.sampled_from(SIZES), capability=capabilities, wish=wishes, request=requests)
def test_what_is_granted_beyond_the_table_is_predicted_to_fit(
    size: int, capability: tuple[int, int], wish: dict[str, Any], request: Request
) -> None:
    card = card_of(size, capability)
    plan = resolve(card, TABLE, Overrides(**wish), request)
    usual = resolve(card, TABLE, Overrides(variant=plan.variant), request)
    clamped, _ = clamp(request, plan, lm=request.think)
    model = TABLE.variants[plan.variant].memory_model
    thinks = clamped.think and plan.lm is not None
    needed = needed_bytes(model, plan.knobs, question_of(clamped, card, plan.variant, thinks=thinks))
    beyond = plan.frontier != usual.frontier or plan.frontier.longest(clamped.batch, lm=thinks) < clamped.duration_s
    if beyond and plan.reach.of(lm=thinks):
        assert needed is not None
        assert needed <= songs_room(card, TABLE)


@settings(max_examples=300)
@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=2, max_size=2, unique=True).map(sorted),
    wish=wishes,
    request=requests,
)
def test_wishes_granted_on_a_card_are_granted_on_a_larger_one(
    sizes: list[int], wish: dict[str, Any], request: Request
) -> None:
    small, large = (resolve(card_of(size), TABLE, Overrides(**wish), request) for size in sizes)
    # One wish alone may be granted because another is not, or because the smaller card's tier has INT8 weights.
    assume(all(getattr(small, name) == value for name, value in wish.items()))
    assume(small.quantization == large.quantization)
    for name, value in wish.items():
        if name != "backend":
            assert getattr(large, name) == value or value is None, (name, small.warnings, large.warnings)


@given(size=st.sampled_from(SIZES), wish=wishes, request=requests)
def test_a_wish_that_is_not_granted_has_a_sentence_with_numbers(
    size: int, wish: dict[str, Any], request: Request
) -> None:
    plan = resolve(card_of(size), TABLE, Overrides(**wish), request)
    usual = resolve(card_of(size), TABLE, Overrides(variant=plan.variant), request)
    said = "\n".join(sentence for sentence in plan.warnings if sentence not in usual.warnings)
    for name in ("lm", "offload", "quantization"):
        if name in wish and getattr(plan, name) != wish[name]:
            assert "GiB" in said, (name, plan.warnings)


@pytest.mark.parametrize(
    ("size", "wish", "granted"),
    [
        (16, {"lm": "4B"}, {"lm": "4B", "offload": Offload.CPU}),
        (8, {"lm": "1.7B"}, {"lm": "1.7B", "offload": Offload.CPU_DIT, "backend": Backend.VLLM}),
        (8, {"lm": "1.7B", "backend": Backend.PT}, {"lm": "1.7B", "offload": Offload.CPU_DIT}),
        (12, {"lm": "4B"}, {"lm": "4B", "offload": Offload.CPU_DIT, "backend": Backend.VLLM}),
    ],
)
def test_a_larger_language_model_moves_offload(size: int, wish: dict[str, Any], granted: dict[str, Any]) -> None:
    plan = resolve(card_of(size), TABLE, Overrides(**wish))
    assert {name: getattr(plan, name) for name in granted} == granted
    assert plan.lm in plan.lm_models
    assert plan.longest(1, lm=True) >= 60
    sentences = " ".join(plan.warnings)
    assert plan.lm in sentences
    assert plan.offload in sentences


def report(size: float, about: str, request: dict[str, Any] | None = None, **wish: Any) -> Any:
    return pytest.param(size, wish, request or {}, id=about)


@pytest.mark.parametrize(
    ("size", "wish", "asked"),
    [
        report(16, "1.7B with sft, 215 s, two songs", {"duration_s": 215, "batch": 2}, variant=Variant.SFT, lm="1.7B"),
        report(15.995, "a size a hair below 16", {"batch": 2}, lm="1.7B"),
        report(12, "thinking is not cut by the card's model", {"think": True}, lm="1.7B"),
        report(8, "the language model in spite of the tier", {"think": True}, lm="0.6B", backend=Backend.PT),
        report(
            24, "4B through PyTorch beside XL", {"think": True}, variant=Variant.XL_SFT, lm="4B", backend=Backend.PT
        ),
        report(16, "XL without INT8", {"duration_s": 165}, variant=Variant.XL_TURBO, quantization=None),
        report(12, "XL with offload", {"duration_s": 120}, variant=Variant.XL_TURBO, offload=Offload.CPU_DIT),
        report(8, "two songs of base of four minutes", {"duration_s": 246, "batch": 2}, variant=Variant.BASE),
        report(8, "one song of base of two minutes", {"duration_s": 130}, variant=Variant.BASE),
        report(
            8, "all parts stay for a short song without planning", {"duration_s": 30}, offload=Offload.NONE, lm=None
        ),
        report(6, "the transformer stays for a short song", {"duration_s": 30}, offload=Offload.CPU, lm=None),
        report(24, "nothing is offloaded from a large card", {"batch": 8}, offload=Offload.NONE, lm="4B"),
        report(4, "eight long songs one after another", {"duration_s": 240, "batch": 8}),
        report(24, "more songs than the table lists", {"duration_s": 60, "batch": 16}),
    ],
)
def test_what_users_were_refused_is_granted(size: float, wish: dict[str, Any], asked: dict[str, Any]) -> None:
    request = Request(**{"caption": "rain", "duration_s": 60.0, "seed": 3} | asked)
    plan = resolve(card_of(size), TABLE, Overrides(**wish), request)
    assert {name: getattr(plan, name) for name in wish} == wish, plan.warnings
    assert clamp(request, plan, lm=request.think)[0] == request


def test_a_song_too_long_for_a_wish_is_made_with_more_offload_and_hears_the_numbers() -> None:
    wish = Overrides(variant=Variant.XL_TURBO, offload=Offload.CPU_DIT, quantization=None, lm=None)
    short, long = (Request(caption="x", duration_s=s, batch=1) for s in (10, 600))
    sizes = (size / 20 for size in range(120, 260))
    size = next(size for size in sizes if resolve(card_of(size), TABLE, wish, short).offload is Offload.CPU_DIT)
    plan = resolve(card_of(size), TABLE, wish, long)
    assert plan.offload is Offload.STREAM
    (sentence,) = (sentence for sentence in plan.warnings if "Shorter songs" in sentence)
    assert sentence.count("GiB") == 3


def test_no_predicted_limit_has_the_evidence_of_a_certified_one() -> None:
    plan = resolve(simulated_card(8), TABLE, Overrides(offload=Offload.NONE, lm=None))
    assert plan.offload is Offload.NONE
    of_limits = {
        source.kind
        for field, source in plan.evidence.items()
        if field.partition(".")[0] in ("max_duration_s", "max_batch", "frontier")
    }
    assert of_limits == {EvidenceKind.ESTIMATED}
