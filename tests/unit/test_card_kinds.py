"""Names of kinds of card, as Ray and people write them, and the cards that they mean."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.hardware.card import Card, CardKind
from acestep.hardware.card_sizes import CATALOGUE
from acestep.units import GIB
from calibrate.executors.cards import is_of_kind, kinds_of, simulated_as
from calibrate.executors.ray_cluster import RECOGNISED, TYPE_PREFIX, kinds_on


@given(cards=st.lists(st.tuples(st.sampled_from(sorted(CATALOGUE)), st.integers(0, 2)), min_size=1, max_size=6))
def test_every_card_is_of_the_kind_that_it_is_given(cards: list[tuple[str, int]]) -> None:
    here = [
        Card(kind=CardKind.CUDA, name=f"NVIDIA {name}", uuid=f"GPU-{number}", total_bytes=size * GIB)
        for number, (name, choice) in enumerate(cards)
        for size in [CATALOGUE[name][choice % len(CATALOGUE[name])]]
    ]
    kinds = kinds_of(here)
    assert sorted(card.uuid for alike in kinds.values() for card in alike) == sorted(card.uuid for card in here)
    assert len(kinds) == len({(card.name, card.nameplate_gib) for card in here})
    for kind, alike in kinds.items():
        assert len({(card.name, card.nameplate_gib) for card in alike}) == 1
        assert all(is_of_kind(card, kind) for card in alike)


@pytest.mark.parametrize(
    ("name", "kind", "is_one"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", True),
        ("NVIDIA A100-SXM4-80GB", "A100-80G", True),
        ("NVIDIA A100-SXM4-80GB", "A100-40G", False),
        ("NVIDIA GeForce RTX 4070 Ti", "RTX-4070", False),
        ("NVIDIA A10G", "A10G", True),
        ("NVIDIA L40S", "L4", False),
        ("NVIDIA GeForce RTX 4090", "GeForce-RTX-4090", True),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "GeForce-RTX-4070-Ti-SUPER", True),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX-PRO-6000", True),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000", True),
        ("NVIDIA RTX A6000", "RTX-6000", False),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-6000", False),
    ],
)
def test_a_declared_kind_is_compared_with_the_card(name: str, kind: str, is_one: bool) -> None:
    card = msgspec.structs.replace(simulated_as("H100"), name=name, total_bytes=79 * GIB)
    assert is_of_kind(card, kind) is is_one


@pytest.mark.parametrize(
    ("declared", "recognised", "kept"),
    [
        ({"RTX-4090"}, "GeForce-RTX-4090", {"RTX-4090"}),
        ({"A100-80G"}, "A100", {"A100-80G"}),
        ({"RTX-PRO-6000-Blackwell"}, "RTX-PRO-6000", {"RTX-PRO-6000-Blackwell"}),
        (set[str](), "GeForce-RTX-4090", {"GeForce-RTX-4090"}),
        ({"RTX-4070"}, "GeForce-RTX-4070-Ti", {"RTX-4070", "GeForce-RTX-4070-Ti"}),
    ],
)
def test_a_card_that_ray_recognises_keeps_its_declared_name(
    declared: set[str], recognised: str, kept: set[str]
) -> None:
    resources = {f"{TYPE_PREFIX}{kind}": 1.0 for kind in {recognised, *declared}} | {"CPU": 8.0}
    assert set(kinds_on({"Resources": resources, "Labels": {RECOGNISED: recognised}})) == kept


@pytest.mark.parametrize(
    ("kind", "capability"), [("RTX-PRO-6000", (12, 0)), ("RTX-6000", (8, 9)), ("GeForce-RTX-4090", (8, 9))]
)
def test_a_kind_that_ray_recognises_can_be_simulated(kind: str, capability: tuple[int, int]) -> None:
    assert simulated_as(kind).capability == capability
