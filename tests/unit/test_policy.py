"""The policy says what is decided and why; a file that is not a policy is refused by name."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.budgets import System
from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.knobs import Backend, Offload, Quantization, Variant
from acestep.units import GIB, MIB
from calibrate.table.knobs import ladder
from calibrate.table.policy import Policy, SizeTerm, budget_bytes, load_policy

POLICY = load_policy()
FREE_ON_WINDOWS = {4: 3.30, 6: 4.97, 8: 6.63, 12: 10.83, 16: 14.57, 32: 30.20}
"""What just-started PyTorch saw free on Windows, in GiB, by the size on the box."""

RESERVED = {4: (0.32, 0.37), 6: (0.39, 0.40), 8: (0.35, 0.47), 12: (0.51, 0.51), 16: (0.53, 0.53), 32: (0.6, 0.64)}
"""How much less than on its box CUDA called the total, the least and the most, in GiB."""


def raw() -> dict[str, Any]:
    return json.loads(msgspec.json.encode(POLICY))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("nameplate", "free"), FREE_ON_WINDOWS.items())
def test_on_windows_a_budget_begins_with_what_pytorch_saw_free(nameplate: int, free: float) -> None:
    taken = POLICY.taken_gib(nameplate, System.WINDOWS)
    assert nameplate - taken["shortfall"] - taken["context"] - taken["windows"] == pytest.approx(free, abs=0.01)


@pytest.mark.parametrize(("nameplate", "seen"), RESERVED.items())
def test_a_driver_reserves_the_most_that_was_seen_of_a_size(nameplate: int, seen: tuple[float, float]) -> None:
    least, most = seen
    assert least <= POLICY.taken_gib(nameplate, System.LINUX)["shortfall"] <= most


def test_every_promise_keeps_a_margin_and_the_smallest_card_a_larger_one() -> None:
    for nameplate, system in product(POLICY.certified_sizes_gib, System):
        taken = POLICY.taken_gib(nameplate, system)
        left = budget_bytes(nameplate, POLICY, system) + taken["margin"] * GIB
        share = 0.1 if nameplate == 4 else 0.05
        assert taken["margin"] * GIB >= max(share * left - 1, 64 * MIB)


@given(st.floats(1, 200), st.floats(1, 200))
def test_a_larger_card_never_has_a_smaller_budget(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert budget_bytes(small, POLICY) <= budget_bytes(large, POLICY) < large * GIB


@pytest.mark.parametrize("nameplate", [0.1, 0.5])
def test_a_card_with_nothing_left_is_a_usage_error(nameplate: float) -> None:
    with pytest.raises(UsageError, match="larger size"):
        budget_bytes(nameplate, POLICY)


def by_system(**margin: Any) -> Policy:
    """The policy with what each thing takes by size, with a term of Windows, and with margins."""
    document = raw()
    document["budget"] = {
        "shortfall": {"by_size": [[4, 0.37], [8, 0.47], [16, 0.53]], "why": "What drivers reserve."},
        "context": {"by_size": [[8, 0.15], [24, 0.65]], "why": "What contexts take."},
        "headroom": {"share": 0.02, "why": "What a desktop takes more."},
        "windows": {"by_size": [[4, 0.18], [8, 0.75]], "why": "What Windows keeps."},
    }
    for tier in document["tiers"]:
        tier.pop("margin", None)
    document["margin"] = {"share": 0.05, "at_least_mib": 64, "why": "What a promise leaves."} | margin
    return msgspec.convert(document, Policy)


@given(st.floats(2, 200), st.floats(2, 200), st.sampled_from(System))
def test_terms_by_size_rise_with_the_card_no_faster_than_the_card(one: float, other: float, system: System) -> None:
    policy = by_system()
    small, large = sorted((one, other))
    assert budget_bytes(small, policy, system) <= budget_bytes(large, policy, system)


@given(st.floats(2, 200))
def test_windows_leaves_less_and_a_promise_keeps_its_margin_free(size: float) -> None:
    policy = by_system()
    linux, windows = (budget_bytes(size, policy, system) for system in (System.LINUX, System.WINDOWS))
    assert windows < linux
    free = linux + policy.taken_gib(size, System.LINUX)["margin"] * GIB
    assert linux <= free * 0.95 + 1
    assert linux <= free - 64 * MIB + 1


def test_a_term_between_two_sizes_is_in_proportion_and_outside_them_that_of_the_nearest() -> None:
    term = by_system().budget.shortfall
    assert [term.of(size) for size in (1, 4, 6, 8, 16, 32)] == pytest.approx([0.37, 0.37, 0.42, 0.47, 0.53, 0.53])


def test_a_tier_may_have_a_margin_of_its_own() -> None:
    document = msgspec.to_builtins(by_system())
    document["tiers"][0]["margin"] = {"share": 0.1, "at_least_mib": 64, "why": "Most cards of 4 GB leave less."}
    policy = msgspec.convert(document, Policy)
    assert budget_bytes(4, policy) < budget_bytes(4, by_system())
    assert budget_bytes(8, policy) == budget_bytes(8, by_system())


def test_a_term_given_in_two_ways_is_refused() -> None:
    with pytest.raises(ValueError, match="two ways"):
        SizeTerm(share=0.1, gib=1, why="It has two values.")


def test_certification_sizes_are_the_smallest_usual_card_of_each_tier() -> None:
    assert POLICY.certified_sizes_gib == (4, 5, 7, 8, 12, 16, 20, 24)


@given(st.floats(0, 500))
def test_every_size_has_exactly_one_tier(size: float) -> None:
    assert sum(size in tier.vram_gib for tier in POLICY.tiers) == 1


def test_small_tiers_run_without_vllm_and_load_no_language_model_unasked() -> None:
    for tier in POLICY.tiers:
        small = tier.id in ("tier1", "tier2", "tier3")
        assert tier.backend is (Backend.PT if small else Backend.VLLM)
        assert (Backend.VLLM in tier.backends_allowed) is not small
        assert {Backend.PT, Backend.MLX} <= set(tier.backends_allowed)
        assert tier.init_lm is (tier.id not in ("tier1", "tier2"))


def test_the_ladder_starts_with_everything_on_the_card_quantizes_late_and_streams_last() -> None:
    rungs = ladder(POLICY, Variant.TURBO)
    assert (rungs[0].offload, rungs[0].quantization) == (Offload.NONE, None)
    streams = [rung.offload is Offload.STREAM for rung in rungs]
    assert streams == sorted(streams)
    whole = [rung.quantization is Quantization.INT8 for rung in rungs if rung.offload is not Offload.STREAM]
    assert whole == sorted(whole)


def test_equal_policies_have_equal_digests_and_any_change_shows() -> None:
    loosened = raw()
    loosened["budget"]["headroom"]["share"] = 0.01
    assert msgspec.convert(raw(), Policy).digest == POLICY.digest
    assert msgspec.convert(loosened, Policy).digest != POLICY.digest


def _drop_why(policy: dict[str, Any]) -> None:
    del policy["budget"]["context"]["why"]


def _empty_why(policy: dict[str, Any]) -> None:
    policy["preference"][0]["why"] = ""


def _text_for_number(policy: dict[str, Any]) -> None:
    policy["budget"]["headroom"]["share"] = "2 %"


def _unknown_field(policy: dict[str, Any]) -> None:
    policy["tiers"][3]["max_duration_s"] = 600


def _unknown_knob(policy: dict[str, Any]) -> None:
    policy["preference"][1]["offload"] = "moon"


def _gap(policy: dict[str, Any]) -> None:
    policy["tiers"][1]["vram_gib"]["lower"] = 4.5


def _certified_outside(policy: dict[str, Any]) -> None:
    policy["tiers"][4]["certified_gib"] = 16


def _backend_not_allowed(policy: dict[str, Any]) -> None:
    policy["tiers"][0]["backend"] = "vllm"


def _same_rung_twice(policy: dict[str, Any]) -> None:
    policy["preference"].append(policy["preference"][0])


def _falling_grid(policy: dict[str, Any]) -> None:
    policy["durations_s"]["values"].reverse()


def _song_too_long(policy: dict[str, Any]) -> None:
    policy["durations_s"]["values"].append(601)


def _song_of_nothing(policy: dict[str, Any]) -> None:
    policy["durations_s"]["values"].insert(0, 0)


def _broken_second(policy: dict[str, Any]) -> None:
    policy["durations_s"]["values"][0] += 0.5


def _same_length_twice(policy: dict[str, Any]) -> None:
    policy["durations_s"]["values"].insert(0, policy["durations_s"]["values"][0])


def _endless_shortfall(policy: dict[str, Any]) -> None:
    policy["budget"]["shortfall"] = {"share": 0.05, "at_most_gib": math.inf, "why": "It has no end."}


def _endless_context(policy: dict[str, Any]) -> None:
    policy["budget"]["context"] = {"gib": math.inf, "why": "It has no end."}


def _endless_headroom(policy: dict[str, Any]) -> None:
    policy["budget"]["headroom"]["share"] = math.inf


def _other_batches(policy: dict[str, Any]) -> None:
    policy["batches"]["values"] = [1, 3]


def _nothing_left(policy: dict[str, Any]) -> None:
    policy["budget"]["context"] = {"gib": 4, "why": "It takes all there is."}


def _half_a_character(policy: dict[str, Any]) -> None:
    policy["tiers"][2]["label"] = "\ud800"


def _too_new(policy: dict[str, Any]) -> None:
    policy["schema_version"] = 2


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_drop_why, "budget.context"),
        (_empty_why, "preference[0].why"),
        (_text_for_number, "budget.headroom.share"),
        (_unknown_field, "tiers[3]"),
        (_unknown_knob, "preference[1].offload"),
        (_gap, "tier2"),
        (_certified_outside, "certified_gib"),
        (_backend_not_allowed, "backends_allowed"),
        (_same_rung_twice, "preference"),
        (_falling_grid, "durations_s"),
        (_song_too_long, "durations_s.values"),
        (_song_of_nothing, "durations_s.values"),
        (_broken_second, "durations_s.values"),
        (_same_length_twice, "durations_s"),
        (_endless_shortfall, "budget.shortfall.at_most_gib"),
        (_endless_context, "budget.context.gib"),
        (_endless_headroom, "budget.headroom.share"),
        (_other_batches, "batches"),
        (_nothing_left, "budget"),
        (_half_a_character, "tiers[2].label"),
        (_too_new, "schema_version"),
    ],
)
def test_a_spoiled_policy_is_refused_with_file_and_field(spoil: Any, field: str, tmp_path: Path) -> None:
    document = raw()
    spoil(document)
    path = tmp_path / "policy.json"
    # 1e999 is JSON, and readers parse it as infinity.
    path.write_text(json.dumps(document).replace("Infinity", "1e999"))
    with pytest.raises(InvalidInputError) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    assert field in str(caught.value)
    assert caught.value.exit is Exit.INVALID


def test_a_truncated_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(raw())[:-40])
    with pytest.raises(InvalidInputError, match="cut short"):
        load_policy(path)
