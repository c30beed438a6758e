"""A card has the size of its box, for every source of its memory size."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from acestep.hardware.card import Card, CardKind, nameplate_gib, planning_card, simulated_card
from acestep.hardware.card_sizes import BOXES_GIB, CATALOGUE, RECORDED, SizeRule, box_of, card_model, rounded
from acestep.knobs import Variant
from acestep.tiers import load_tiers
from acestep.units import GIB, MIB, gib_to_bytes

FIXTURES = Path(__file__).parents[1] / "fixtures"
CARDS: list[dict[str, Any]] = json.loads((FIXTURES / "real_cards.json").read_text())
TIERS = load_tiers(FIXTURES / "tiers.json").variants[Variant.TURBO].tiers

sizes = st.floats(0.01, 200)


def reports(card: dict[str, Any]) -> list[int]:
    """What a card says it has, by NVML and by CUDA."""
    return [mib * MIB for mib in card["nvml_mib"]] + [gib_to_bytes(size) for size in card["cuda_gib"]]


def tier_of(size: float) -> str:
    return next(tier.id for tier in TIERS if size in tier.vram_gib)


def card_of(name: str, total_bytes: int) -> Card:
    kind = next(
        (kind for word, kind in (("AMD", CardKind.ROCM), ("Intel", CardKind.XPU)) if word in name), CardKind.CUDA
    )
    return Card(kind=kind, name=name, uuid="GPU-1", total_bytes=total_bytes)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card["name"])
def test_a_real_card_has_the_size_of_its_box_in_both_rulers(card: dict[str, Any]) -> None:
    assert reports(card)
    for total in reports(card):
        assert card_of(card["name"], total).nameplate_gib == card["box"], total / GIB


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card["name"])
def test_the_tier_of_a_size_that_a_person_types_is_that_of_the_card_that_reports_it_to_cuda(
    card: dict[str, Any],
) -> None:
    for size in card["cuda_gib"]:
        assert tier_of(simulated_card(size).nameplate_gib) == tier_of(card["box"])


@pytest.mark.parametrize(
    ("name", "reported", "rule"),
    [
        ("Tesla T4", 14.56, SizeRule.CATALOGUE),
        ("Tesla K80", 11.17, SizeRule.CATALOGUE),
        ("NVIDIA L20", 44.99, SizeRule.CATALOGUE),
        ("NVIDIA B200", 179.06, SizeRule.CATALOGUE),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19.5, SizeRule.NAME),
        ("GRID T4-8Q", 7.2, SizeRule.NAME),
        ("NVIDIA A10-12C", 10.9, SizeRule.NAME),
        ("NVIDIA RTX 4000 SFF Ada Generation", 18.4, SizeRule.CATALOGUE),
        ("Intel(R) Arc(TM) Pro B70 Graphics", 30.2, SizeRule.CATALOGUE),
        ("a card of a later year", 7.45, SizeRule.DRIVER),
        ("a card of a later year", 13.2, SizeRule.AS_REPORTED),
        ("a card of a later year", 13, SizeRule.AS_REPORTED),
    ],
)
def test_the_deciding_rule_is_returned(name: str, reported: float, rule: SizeRule) -> None:
    assert card_of(name, gib_to_bytes(reported)).box.rule is rule


@given(st.sampled_from(sorted(CATALOGUE)), st.floats(0.9, 1.0), st.data())
def test_a_card_of_the_catalogue_is_one_of_the_sizes_it_is_sold_in(
    name: str, share: float, data: st.DataObject
) -> None:
    box = data.draw(st.sampled_from(CATALOGUE[name]))
    assert box_of(f"NVIDIA GeForce {name.upper()}", gib_to_bytes(box * share)).gib in CATALOGUE[name]


@given(st.text(max_size=30), sizes)
def test_a_nameplate_is_never_below_the_reported_size_or_far_above_it(name: str, size: float) -> None:
    box = box_of(name, gib_to_bytes(size)).gib
    assert size * 0.994 - 0.0051 <= box <= size / 0.88 + 0.0051


@pytest.mark.parametrize("size", [6.5, 6.25, 10, 11, 14, 15, 18, 22, 7.4, 15.4, 23.4, 2.5])
def test_a_size_that_a_person_types_and_no_rule_rounds_is_itself(size: float) -> None:
    assert nameplate_gib(gib_to_bytes(size)) == pytest.approx(size)
    assert simulated_card(size).nameplate_gib == pytest.approx(size)


@pytest.mark.parametrize(
    ("tier", "reported"),
    [
        ("tier1", (0, 3.9, 4)),
        ("tier2", (4.4, 5.6, 5.9, 6)),
        ("tier3", (6.4, 7.4)),
        ("tier4", (7.53, 7.6, 8, 9.9)),
        ("tier5", (11.49, 11.6, 12, 15.4)),
        ("tier6a", (15.47, 15.5, 15.995, 16)),
        ("tier6b", (19.6, 20, 23.4)),
        ("unlimited", (23.46, 23.5, 24, 79)),
    ],
)
def test_every_reported_size_is_in_the_tier_of_its_box(tier: str, reported: tuple[float, ...]) -> None:
    assert {tier_of(nameplate_gib(gib_to_bytes(size))) for size in reported} == {tier}


@given(sizes)
def test_a_nameplate_exceeds_the_reported_size_by_the_allowed_shortfall_at_most(size: float) -> None:
    nameplate = rounded(gib_to_bytes(size), recorded=False).gib
    rounding = 0.0051
    assert size - rounding <= nameplate <= size + min(0.55, 0.065 * nameplate) + rounding


@given(sizes, sizes)
def test_a_larger_card_never_has_a_smaller_nameplate(one: float, other: float) -> None:
    assume(not {round(one * 100), round(other * 100)} & set(RECORDED))
    small, large = sorted((gib_to_bytes(one), gib_to_bytes(other)))
    assert nameplate_gib(small) <= nameplate_gib(large)


@given(st.integers(1, 200))
def test_a_whole_size_is_its_own_nameplate(size: int) -> None:
    assert nameplate_gib(size * GIB) == size


@pytest.mark.parametrize("size", BOXES_GIB)
def test_a_card_that_reports_all_of_its_box_has_that_size(size: int) -> None:
    assert card_of("a card of a later year", size * GIB).nameplate_gib == size


def test_a_limited_card_has_no_nameplate_of_its_own() -> None:
    for card in CARDS:
        real = card_of(card["name"], card["box"] * GIB)
        limited = planning_card({"MAX_CUDA_VRAM": repr(card["box"] * 0.91)}, real)
        assert limited.nameplate_gib == rounded(limited.total_bytes, recorded=real.kind is not CardKind.CUDA).gib


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("NVIDIA GeForce RTX 3060", "RTX 3060", True),
        ("NVIDIA GeForce RTX 3060", "NVIDIA  GeForce RTX 3060 ", True),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", True),
        ("NVIDIA A100-SXM4-40GB MIG 2g.10gb", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", True),
        ("NVIDIA A100-SXM4-40GB MIG 2g.10gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", False),
        ("NVIDIA A100-SXM4-40GB MIG 2g.10gb", "NVIDIA A100-SXM4-40GB", False),
        ("NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 3060 Ti", False),
    ],
)
def test_a_model_of_cards_is_told_by_its_name_and_the_size_of_a_slice(one: str, other: str, same: bool) -> None:
    assert (card_model(one) == card_model(other)) == same
