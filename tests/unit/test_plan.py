"""A plan never leaves the table: each wish is honoured or refused in words."""

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import UNSET

from acestep.errors import UsageError
from acestep.hardware.card import CPU, Card, CardKind, simulated_card
from acestep.knobs import LM_MODELS, Attention, Backend, Knobs, Offload, Quantization, Variant
from acestep.limits.capabilities import songs_in_float32
from acestep.limits.plan import Overrides, Plan, on_device, overrides_from, resolve
from acestep.tiers import Tier
from acestep.units import minutes
from tests.planned import OWN_MEMORY, TABLE, TIERS, card_of, cards, knob_wishes, packages, plans, wishes


def tier(name: str) -> Tier:
    return next(tier for tier in TIERS if tier.id == name)


def rank(offload: Offload) -> int:
    return list(Offload).index(offload)


@given(cards, wishes, packages)
def test_no_wish_yields_a_plan_outside_the_table(card: Card, overrides: Overrides, installed: dict[str, bool]) -> None:
    plan = resolve(card, TABLE, overrides, **installed)
    named, limits = tier(plan.tier), tier(plan.limits_of)
    assert card.nameplate_gib in named.vram_gib
    assert limits.certified_gib <= max(card.nameplate_gib, TIERS[0].certified_gib)
    for field in ("max_duration_s", "max_batch", "frontier", "lm_models", "certified_gib"):
        assert getattr(plan, field) == getattr(limits, field)
    assert plan.lm is None or plan.lm in limits.lm_models
    assert plan.backend in plan.backends_allowed
    if card.kind in OWN_MEMORY:
        assert rank(plan.offload) >= rank(limits.offload)
        assert set(plan.backends_allowed) <= {*limits.backends_allowed, Backend.PT}
    else:
        assert (plan.offload, plan.quantization, plan.lm_quantization) == (Offload.NONE, None, None)
    if card.kind in OWN_MEMORY and installed["torchao_available"]:
        assert (plan.quantization is None) <= (limits.quantization is None)
        assert (plan.lm_quantization is None) <= (limits.lm_quantization is None)


@given(cards, wishes, packages)
def test_each_wish_is_honoured_or_refused_in_words(
    card: Card, overrides: Overrides, installed: dict[str, bool]
) -> None:
    plan = resolve(card, TABLE, overrides, **installed)
    silent = resolve(card, TABLE, Overrides(variant=overrides.variant), **installed)
    refusals = "\n".join(sentence for sentence in plan.warnings if sentence not in silent.warnings)
    for field in knob_wishes:
        wish = getattr(overrides, field)
        if wish is UNSET or getattr(plan, field) == wish:
            continue
        said = {True: "Compiling", None: "Unquantized"}.get(wish, str(wish))
        assert said in refusals or (field == "compile" and said in "\n".join(silent.warnings))


@given(cards, packages, st.data())
def test_a_wish_for_one_knob_leaves_the_others_alone(
    card: Card, installed: dict[str, bool], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(knob_wishes)))
    wished = resolve(card, TABLE, Overrides(**{field: data.draw(knob_wishes[field])}), **installed)
    usual = resolve(card, TABLE, **installed)
    followers = {"warnings", field, *{"lm": ["init_lm"], "lm_quantization": ["backend"]}.get(field, [])}
    changed = {name for name in Plan.__struct_fields__ if getattr(wished, name) != getattr(usual, name)}
    assert changed <= followers


@given(cards, wishes, packages)
def test_a_plans_own_knobs_as_wishes_give_the_same_knobs(
    card: Card, overrides: Overrides, installed: dict[str, bool]
) -> None:
    plan = resolve(card, TABLE, overrides, **installed)
    again = resolve(card, TABLE, Overrides(**msgspec.structs.asdict(plan.knobs)), **installed)
    assert again.knobs == plan.knobs


@given(st.sampled_from(TIERS))
def test_a_certified_card_without_wishes_gets_what_its_tier_says_and_no_warning(tier: Tier) -> None:
    plan = resolve(simulated_card(tier.certified_gib), TABLE)
    assert plan.warnings == ()
    assert (plan.tier, plan.limits_of) == (tier.id, tier.id)
    for field in ("offload", "quantization", "lm_quantization", "backend", "compile", "init_lm"):
        assert getattr(plan, field) == getattr(tier, field)
    assert plan.lm == tier.recommended_lm


@given(st.floats(4.01, 8))
def test_a_card_below_its_tiers_certified_size_keeps_the_name_and_gets_the_limits_below(size: float) -> None:
    card = simulated_card(size)
    named = next(tier for tier in TIERS if card.nameplate_gib in tier.vram_gib)
    assume(card.nameplate_gib < named.certified_gib)
    plan = resolve(card, TABLE)
    below = TIERS[TIERS.index(named) - 1]
    assert (plan.tier, plan.limits_of, plan.offload) == (named.id, below.id, below.offload)
    assert named.id in plan.warnings[0]
    assert below.id in plan.warnings[0]


@given(st.floats(0.1, 3.7))
def test_a_card_below_the_first_certified_size_streams(size: float) -> None:
    # 3.63 and 3.68 are what cards with 4 GB on their box report.
    assume(simulated_card(size).nameplate_gib < TIERS[0].certified_gib)
    plan = resolve(simulated_card(size), TABLE)
    assert (plan.tier, plan.limits_of, plan.offload) == ("tier1", "tier1", Offload.STREAM)
    assert len(plan.warnings) == 1


@pytest.mark.parametrize("size", [3.63, 3.68])
def test_a_card_that_reports_what_4_gb_cards_do_has_the_first_tiers_own_offload(size: float) -> None:
    plan = resolve(simulated_card(size), TABLE)
    assert (plan.tier, plan.limits_of, plan.offload) == ("tier1", "tier1", TIERS[0].offload)
    assert plan.warnings == ()


def test_the_cpu_has_the_first_tiers_limits_and_nothing_to_offload_or_compile() -> None:
    plan = resolve(CPU, TABLE)
    assert (plan.tier, plan.frontier) == ("tier1", TIERS[0].frontier)
    assert (plan.offload, plan.quantization, plan.backend, plan.compile) == (Offload.NONE, None, Backend.PT, False)
    assert plan.warnings == ()


def test_apple_takes_mlx_and_hears_that_its_limits_were_found_with_int8() -> None:
    plan = resolve(card_of(CardKind.MPS, 12, (0, 0)), TABLE)
    assert (plan.backend, plan.backends_allowed) == (Backend.MLX, (Backend.MLX, Backend.PT))
    assert any("int8" in sentence for sentence in plan.warnings)


@pytest.mark.parametrize("kind", [CardKind.ROCM, CardKind.XPU])
def test_amd_and_intel_cards_run_pt_uncompiled_with_the_tiers_offload(kind: CardKind) -> None:
    plan = resolve(card_of(kind, 12, (0, 0)), TABLE)
    assert (plan.backends_allowed, plan.compile) == ((Backend.PT,), False)
    assert (plan.offload, plan.quantization) == (tier("tier5").offload, tier("tier5").quantization)


@pytest.mark.parametrize(
    ("size", "wish", "said"),
    [
        (6, {"backend": Backend.VLLM}, ("vllm", "this size", "pt")),
        (24, {"backend": Backend.MLX}, ("mlx", "NVIDIA", "vllm")),
        (8, {"lm": "4B"}, ("4B", "not certified on this card", "0.6B")),
        (12, {"lm": "4B"}, ("4B", "not certified on this card", "1.7B is used")),
        (4, {"lm": "0.6B"}, ("0.6B", "not certified on this card", "none")),
        (8, {"offload": Offload.NONE}, ("none", "memory", "cpu+dit")),
        (8, {"quantization": None}, ("Unquantized", "not certified", "int8")),
        (24, {"quantization": Quantization.FP8}, ("fp8", "8.9", "no quantization")),
    ],
)
def test_a_refusal_says_what_why_and_what_instead(size: float, wish: dict[str, Any], said: tuple[str, ...]) -> None:
    (sentence,) = resolve(simulated_card(size), TABLE, Overrides(**wish)).warnings
    assert all(word in sentence for word in said)


def without_lms(tier: Tier) -> Tier:
    nothing = dict.fromkeys(tier.frontier.with_lm, 0)
    return msgspec.structs.replace(
        tier,
        lm_models=(),
        recommended_lm=None,
        max_duration_s=msgspec.structs.replace(tier.max_duration_s, with_lm=0),
        max_batch=msgspec.structs.replace(tier.max_batch, with_lm=0),
        frontier=msgspec.structs.replace(tier.frontier, with_lm=nothing),
    )


@given(cards, st.sampled_from(LM_MODELS))
def test_no_card_is_blamed_where_the_table_certifies_no_language_model_at_all(card: Card, model: str) -> None:
    turbo = TABLE.variants[Variant.TURBO]
    silent = msgspec.structs.replace(turbo, tiers=tuple(without_lms(tier) for tier in TIERS))
    table = msgspec.structs.replace(TABLE, variants={Variant.TURBO: silent})
    plan = resolve(card, table, Overrides(lm=model))
    (sentence,) = set(plan.warnings) - set(resolve(card, table).warnings)
    assert plan.lm is None
    assert model in sentence
    assert "No language model is certified" in sentence
    assert "this card" not in sentence


def test_more_offload_and_more_quantization_than_the_tier_needs_are_honoured() -> None:
    plan = resolve(simulated_card(24), TABLE, Overrides(offload=Offload.STREAM, quantization=Quantization.INT8))
    assert (plan.offload, plan.quantization, plan.warnings) == (Offload.STREAM, Quantization.INT8, ())


def test_a_quantized_language_model_runs_on_the_backend_that_can_run_it() -> None:
    plan = resolve(simulated_card(24), TABLE, Overrides(lm_quantization=Quantization.INT8))
    assert (plan.lm_quantization, plan.backend) == (Quantization.INT8, Backend.PT)
    assert any("vllm" in sentence and "unquantized" in sentence for sentence in plan.warnings)


def test_a_language_model_that_is_not_wanted_is_not_loaded_unasked() -> None:
    plan = resolve(simulated_card(24), TABLE, Overrides(lm=None))
    assert (plan.lm, plan.init_lm, plan.warnings) == (None, False, ())


def test_int8_without_torchao_falls_back_in_words_even_unasked() -> None:
    plan = resolve(simulated_card(8), TABLE, torchao_available=False)
    assert plan.quantization is None
    assert any("torchao" in sentence for sentence in plan.warnings)


def test_flash_attention_needs_ampere_and_its_package() -> None:
    wish = Overrides(attention=Attention.FLASH)
    turing = card_of(CardKind.CUDA, 12, (7, 5))
    assert any("8.0" in sentence for sentence in resolve(turing, TABLE, wish).warnings)
    assert "flash-attn" in resolve(simulated_card(12), TABLE, wish, flash_attn_available=False).warnings[0]
    assert resolve(simulated_card(12), TABLE, wish).attention is Attention.FLASH


def test_a_card_older_than_triton_neither_compiles_nor_runs_vllm() -> None:
    plan = resolve(card_of(CardKind.CUDA, 12, (6, 1)), TABLE)
    assert (plan.backend, plan.compile) == (Backend.PT, False)
    assert any("Compiling" in sentence for sentence in plan.warnings)


def test_a_variant_without_a_table_says_whose_limits_it_has() -> None:
    plan = resolve(simulated_card(8), TABLE, Overrides(variant=Variant.XL_SFT))
    assert plan.variant is Variant.XL_SFT
    assert "xl-sft" in plan.warnings[0]
    assert "turbo" in plan.warnings[0]


@given(plans, packages)
def test_a_plan_carried_out_on_its_own_card_is_unchanged(plan: Plan, installed: dict[str, bool]) -> None:
    assert on_device(plan, plan.card) == plan


@given(cards, cards, wishes)
def test_a_plan_for_another_card_keeps_its_limits_and_says_which_knobs_the_device_lacks(
    card: Card, device: Card, overrides: Overrides
) -> None:
    plan = resolve(card, TABLE, overrides)
    carried = on_device(plan, device)
    assert (carried.card, carried.tier, carried.frontier, carried.lm) == (plan.card, plan.tier, plan.frontier, plan.lm)
    if device.kind not in OWN_MEMORY:
        assert (carried.offload, carried.quantization, carried.backend is Backend.VLLM) == (Offload.NONE, None, False)
    lost = [name for name in Knobs.__struct_fields__ if getattr(carried, name) != getattr(plan, name)]
    wider = songs_in_float32(device, plan.variant) and not songs_in_float32(card, plan.variant)
    assert len(carried.warnings) == len(plan.warnings) + len(lost) + wider
    assert on_device(carried, device) == carried


def test_overrides_take_text_and_values_and_refuse_what_does_not_exist() -> None:
    assert overrides_from({"lm": "none", "quantization": "int8_weight_only", "offload": Offload.CPU}) == Overrides(
        lm=None, quantization=Quantization.INT8, offload=Offload.CPU
    )
    assert overrides_from({"lm": UNSET}) == Overrides()
    assert overrides_from({"variant": "acestep-v15-xl-turbo", "lm": "acestep-5Hz-lm-1.7B"}) == Overrides(
        variant=Variant.XL_TURBO, lm="1.7B"
    )
    for wrong in ({"colour": "red"}, {"offload": "moon"}, {"compile": "perhaps"}, {"lm": 4}):
        with pytest.raises(UsageError):
            overrides_from(wrong)


@pytest.mark.parametrize(("seconds", "text"), [(600, "10 min"), (95, "1 min 35 s"), (0.5, "0.5 s"), (59.96, "1 min")])
def test_a_length_reads_as_a_musician_says_it(seconds: float, text: str) -> None:
    assert minutes(seconds) == text
