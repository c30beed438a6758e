"""The card that is planned for, and the cap: what the environment says about sizes is kept or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.hardware.card import (
    CONTEXT_BYTES,
    CPU,
    SIMULATED_CAPABILITY,
    Card,
    CardKind,
    cap_bytes,
    parse_size_gib,
    planning_card,
)
from acestep.units import GIB, gib_to_bytes

H100 = Card(kind=CardKind.CUDA, name="H100", uuid="GPU-1", total_bytes=79 * GIB, capability=(9, 0), driver="1")


@pytest.mark.parametrize("variable", ["MAX_CUDA_VRAM", "MAX_MPS_VRAM"])
@pytest.mark.parametrize("value", ["", "eight", "0", "-4", "nan", "inf", "-inf", "8GB", "1e300"])
def test_a_size_that_is_no_positive_number_is_a_usage_error_naming_the_variable(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        planning_card({variable: value}, H100)


@pytest.mark.parametrize("value", ["inf", "1e309", "1048576", "0", "nan", "eight"])
def test_a_size_that_no_card_has_is_refused_with_both_bounds(value: str) -> None:
    with pytest.raises(UsageError, match=f"above 0 and below 1048576, such as 8, got '{value}'"):
        parse_size_gib(value, "--vram")


def test_a_bad_size_is_never_silently_no_cap() -> None:
    with pytest.raises(UsageError, match="MAX_CUDA_VRAM"):
        cap_bytes({"MAX_CUDA_VRAM": "lots"}, CPU)


@given(st.floats(0.01, 78.9))
def test_a_limit_below_the_real_card_keeps_the_card_and_caps_it_at_the_size_less_the_context(size: float) -> None:
    environ = {"MAX_CUDA_VRAM": repr(size)}
    card = planning_card(environ, H100)
    assert (card.uuid, card.capability, card.total_bytes) == (H100.uuid, H100.capability, gib_to_bytes(size))
    assert f"{size:g} GiB" in card.name
    if card.total_bytes > CONTEXT_BYTES:
        assert cap_bytes(environ, H100) == gib_to_bytes(size) - CONTEXT_BYTES


@given(st.floats(0.01, CONTEXT_BYTES / GIB))
def test_a_limit_that_the_driver_alone_fills_is_a_usage_error_on_a_real_card_only(size: float) -> None:
    environ = {"MAX_CUDA_VRAM": repr(size)}
    with pytest.raises(UsageError, match=r"MAX_CUDA_VRAM is .* give it 1 or more"):
        cap_bytes(environ, H100)
    assert cap_bytes(environ, CPU) is None


@given(st.floats(80, 500), st.sampled_from([H100, CPU, Card(kind=CardKind.ROCM, name="AMD", total_bytes=999 * GIB)]))
def test_a_limit_no_cuda_card_here_has_is_planned_for_and_caps_nothing(size: float, detected: Card) -> None:
    environ = {"MAX_CUDA_VRAM": repr(size)}
    card = planning_card(environ, detected)
    assert (card.kind, card.capability, card.total_bytes) == (
        CardKind.CUDA,
        SIMULATED_CAPABILITY,
        gib_to_bytes(size),
    )
    assert "simulated" in card.name
    assert cap_bytes(environ, detected) is None


def test_a_limit_of_the_cards_own_size_keeps_the_card_and_caps_nothing() -> None:
    card = planning_card({"MAX_CUDA_VRAM": "79"}, H100)
    assert (card.uuid, card.total_bytes) == (H100.uuid, H100.total_bytes)
    assert cap_bytes({"MAX_CUDA_VRAM": "79"}, H100) is None


def test_only_the_cuda_variable_caps() -> None:
    assert cap_bytes({}, H100) is None
    assert cap_bytes({"MAX_MPS_VRAM": "8"}, H100) is None
    assert planning_card({"MAX_MPS_VRAM": "8"}, H100).kind is CardKind.MPS


def test_without_the_variables_the_plan_is_for_the_card_that_is_there() -> None:
    assert planning_card({}, H100) is H100
