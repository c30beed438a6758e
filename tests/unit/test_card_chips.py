"""A speed belongs to one chip in one form: every spelling of a name finds it, and no other card does."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from acestep.errors import UsageError
from acestep.hardware.card_chips import LAPTOP_SIZES, chip_of, is_laptop, is_same_card
from acestep.hardware.card_sizes import CATALOGUE, sizes_in
from acestep.limits.capabilities import AMPERE
from calibrate.timing.cards import CardSpeed, card_speed, known_cards, notes_on

CARDS = st.sampled_from(known_cards())
MAKERS = ("", "NVIDIA ", "NVIDIA GeForce ", "Tesla ", "nvidia  geforce ")
FORMS = (
    *("SUPER", "Ti", "D", "Laptop GPU", "Laptop", "Mobile", "Max-Q", "with Max-Q Design", "Ada Generation", "SFF"),
    *(
        "(Laptop)",
        "TiSUPER",
        "NVL",
        "PCIe",
        "Server Edition",
        "Max-Q Workstation Edition",
        "MIG 1g.5gb",
        "MIG 3g.40gb",
        "limited to 8 GiB",
    ),
)


def reported(card: CardSpeed) -> list[str]:
    """The card's name as drivers write it."""
    name = card.name
    for ours, theirs in ((" Laptop", " Laptop GPU"), (" Max-Q", " with Max-Q Design"), (" Ada", " Ada Generation")):
        name = name.replace(ours, theirs)
    edition = name.replace("Blackwell", "Blackwell Workstation Edition")
    return [name, name.replace(" Laptop GPU", " Mobile"), edition]


WRITTEN = (
    (r" (?=(Ti|SUPER)\b)", ""),
    (r"(?<=TX) (?=\d)", ""),
    (r"(Laptop|Max-Q|\d+GB)", r"(\1)"),
    (r"(?<=\d)GB\b", "G"),
    (r"^[GR]TX ?(?=\d{4}(?!.*\bAda\b))", ""),
    (r"(?<=TX)", "™"),
    (r"(?<=TX)", "(TM)"),
    (r"^", "NVIDIA® GeForce "),
)
"""How people and shops write a name: patterns in it, and what is there instead."""


def without_size(name: str) -> str:
    return re.sub(r" ?\d+GB", "", name)


def answer(name: str, size_gib: float | None) -> CardSpeed | str:
    """The card of a name, or the sentence that refuses it."""
    try:
        return card_speed(name, size_gib)
    except UsageError as refused:
        return str(refused)


@given(CARDS, st.sampled_from(MAKERS), st.integers(0, 2), st.sampled_from((str, str.lower, str.upper)))
def test_every_spelling_of_a_card_finds_it(card: CardSpeed, maker: str, which: int, cased: type[str]) -> None:
    name = cased(f"{maker}{reported(card)[which]}")
    assert card_speed(name, card.vram_gib) is card
    assert is_same_card(card.name, card.vram_gib, name, card.vram_gib)
    assert is_same_card(card.name, None, name, card.vram_gib)
    sized = name if sizes_in(name) else f"{name} {card.vram_gib:g}GB"
    assert card_speed(sized) is card
    assert card_speed(name).vram_gib == card.vram_gib or not sizes_in(card.name)


@given(CARDS, st.sets(st.integers(0, len(WRITTEN) - 1)), st.sampled_from((str, str.lower, str.upper)))
def test_a_card_is_found_as_people_write_it(card: CardSpeed, ways: set[int], cased: type[str]) -> None:
    name = card.name
    for way in sorted(ways):
        name = re.sub(*WRITTEN[way], name)
    name = cased(name)
    assert card_speed(name, card.vram_gib) is card
    assert is_same_card(card.name, card.vram_gib, name, card.vram_gib)
    for size in (f"{card.vram_gib:g}G", f"({card.vram_gib:g} GB)"):
        assert card_speed(name if sizes_in(name) else f"{name} {size}") is card


@given(CARDS, st.sampled_from(FORMS), st.booleans())
def test_a_card_in_another_form_is_never_taken_for_it(card: CardSpeed, form: str, sized: bool) -> None:
    assume(not chip_of(form) <= chip_of(card.name))
    name = f"NVIDIA GeForce {card.name} {form}"
    size = card.vram_gib if sized else None
    found = answer(name, size)
    if isinstance(found, str):
        assert card.name in found, "the card that is like it is offered"
        assert "doctor --measure" in found
    else:
        assert found is not card
        assert chip_of(found.name, found.vram_gib) == chip_of(name, size)
    assert not is_same_card(card.name, card.vram_gib, name, card.vram_gib)


@given(CARDS, st.integers(1, 200))
def test_a_card_of_another_size_is_never_taken_for_it(card: CardSpeed, size: int) -> None:
    found = answer(without_size(card.name), size)
    assert card.name in found if isinstance(found, str) else found.vram_gib == size


@given(CARDS, st.sampled_from(MAKERS))
def test_of_all_known_cards_each_is_the_same_as_itself_only(listed: CardSpeed, maker: str) -> None:
    for card in known_cards():
        name = f"{maker}{card.name}"
        assert is_same_card(listed.name, listed.vram_gib, name, card.vram_gib) is (card is listed)


@given(CARDS, st.integers(1, 200))
def test_a_list_with_sizes_means_the_card_whose_speed_is_known_and_no_other_size_of_it(
    card: CardSpeed, size: int
) -> None:
    name = without_size(card.name)
    assert is_same_card(card.name, card.vram_gib, name, size) is (answer(name, size) is card)


def test_no_two_cards_are_one_chip_of_one_size() -> None:
    known = [(chip_of(card.name, card.vram_gib), card.vram_gib) for card in known_cards()]
    assert len(known) == len(set(known))


@pytest.mark.parametrize("model", LAPTOP_SIZES)
def test_a_size_that_only_laptops_have_is_sold_and_no_desktop_card_has_it(model: str) -> None:
    assert set(LAPTOP_SIZES[model]) <= set(CATALOGUE[model])
    assert all(is_laptop(f"{model} {size} GB") for size in LAPTOP_SIZES[model])
    for card in known_cards():
        if chip_of(card.name) == frozenset(model.split()):
            assert card.vram_gib not in LAPTOP_SIZES[model]


@pytest.mark.parametrize(
    ("reported", "known"),
    [
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "RTX 3060 Laptop"),
        ("NVIDIA GeForce RTX 3060", "RTX 3060"),
        ("NVIDIA GeForce RTX 3050 6GB Laptop GPU", "RTX 3050 6GB Laptop"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER"),
        ("RTX4070Ti", "RTX 4070 Ti"),
        ("RTX 4050", "RTX 4050 Laptop"),
        ("RTX 4090 16 GB", "RTX 4090 Laptop"),
        ("NVIDIA RTX A2000 12GB", "RTX A2000 12GB"),
        ("NVIDIA RTX A2000", "RTX A2000"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 4000 Ada Generation", "RTX 4000 Ada"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX 4000 SFF Ada"),
        ("Quadro RTX 4000", "Quadro RTX 4000"),
        ("Quadro RTX 5000 with Max-Q Design", "Quadro RTX 5000 Max-Q"),
        ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", "RTX 2080 SUPER Max-Q"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("GRID T4-16Q", None),
        ("NVIDIA GeForce RTX 3060 limited to 6 GiB", None),
    ],
)
def test_names_as_drivers_report_them_find_their_own_card_or_none(reported: str, known: str | None) -> None:
    if known is not None:
        assert card_speed(reported).name == known
        return
    with pytest.raises(UsageError, match="which may be other cards"):
        card_speed(reported)


def test_the_readme_says_how_many_cards_there_are_and_names_one_of_them() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r'calibrate estimate --card "([^"]+)".*?one of (\d+) cards', readme, re.DOTALL)
    assert card_speed(said[0]).name == said[0]
    assert int(said[1]) == len(known_cards())


def test_a_name_that_is_like_none_is_refused_with_all_known_ones() -> None:
    with pytest.raises(UsageError, match="known cards are") as refused:
        card_speed("GT 710")
    assert all(card.name in str(refused.value) for card in known_cards())


@given(CARDS)
def test_an_estimate_says_what_it_depends_on_and_what_it_is_not_for(card: CardSpeed) -> None:
    notes = " ".join(notes_on(card))
    assert (card.source in notes) == ("power" in notes) == is_laptop(card.name)
    assert not is_laptop(card.name) or " W" in card.source, "its source says the power"
    assert ("float32" in notes.replace(card.source, "")) == (card.compute_capability < AMPERE)
    turing = card.capability == "7.5" and card.name.startswith(("GTX", "RTX", "Quadro"))
    assert ("same name" in notes) == (turing and "Max-Q" not in card.name), "drivers name no other laptop's card so"
    measured = " ".join(notes_on(msgspec.structs.replace(card, source="card.json")))
    assert "power" not in measured, "a measured card had the power that it has"
    assert "same name" not in measured, "a measured card is the one that it is"
