"""A cap is put on the card to the byte, and read back to the byte."""

import math
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acestep.devices.cap import fraction_for
from acestep.errors import NotMeasuredError
from acestep.units import GIB
from calibrate.probes.cuda_card import CudaCard, require_held, require_named


def nearest(share_of_bytes: float) -> int:
    """As C++ rounds: half a byte goes up."""
    return math.floor(share_of_bytes + 0.5)


RULES = {"rounds down, as torch 2.11": math.floor, "rounds to the nearest, as torch 2.13 and 2.14": nearest}
EACH_RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


class Allocator:
    """As PyTorch has it: told a share of the card, it keeps bytes, and it tells the share that they are."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.allowed_bytes = total_bytes
        self.rule: Callable[[float], int] = math.floor

    def set_fraction(self, share: float, _: object = None) -> None:
        self.allowed_bytes = self.rule(share * self.total_bytes)

    def fraction(self, _: object = None) -> float:
        return self.allowed_bytes / self.total_bytes


@pytest.fixture(scope="module")
def allocator() -> Iterator[Allocator]:
    """A card of an odd size, as drivers report them."""
    card = Allocator(85_017_624_576)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=card.total_bytes))
        patch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        patch.setattr(torch.cuda, "set_per_process_memory_fraction", card.set_fraction)
        patch.setattr(torch.cuda, "get_per_process_memory_fraction", card.fraction)
        yield card


@EACH_RULE
def test_a_fraction_converts_back_to_its_cap(rule: Callable[[float], int]) -> None:
    """20,000 caps on cards of every size, and the ends: one byte, all but one, and the whole card."""
    draw = random.Random(7)  # noqa: S311 no secret
    totals = [draw.randrange(GIB, 300 * GIB) for _ in range(20_000)]
    caps = [(draw.randint(1, total), total) for total in totals]
    ends = [(cap, total) for total in totals[:200] for cap in (1, total - 1, total)]
    assert [(cap, total) for cap, total in caps + ends if rule(fraction_for(cap, total) * total) != cap] == []


@given(cap_bytes=st.integers(1, 80 * GIB), total_bytes=st.integers(80 * GIB, 200 * GIB))
def test_a_share_is_one_that_torch_takes(cap_bytes: int, total_bytes: int) -> None:
    assert 0 < fraction_for(cap_bytes, total_bytes) <= 1


@pytest.mark.parametrize("cap_bytes", [0, -1, GIB + 1])
def test_a_cap_that_the_card_cannot_have_is_refused(cap_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"within the card's 1\.00 GiB"):
        fraction_for(cap_bytes, GIB)


@EACH_RULE
@given(cap_bytes=st.integers(1, 80 * GIB), total_bytes=st.integers(80 * GIB, 200 * GIB))
def test_every_cap_is_exact_to_the_byte(
    allocator: Allocator, rule: Callable[[float], int], cap_bytes: int, total_bytes: int
) -> None:
    allocator.total_bytes, allocator.rule = total_bytes, rule
    CudaCard().capped(cap_bytes)
    assert allocator.allowed_bytes == cap_bytes


@given(cap_bytes=st.integers(GIB, 80 * GIB), off=st.sampled_from([-GIB // 2, -1, 1, GIB // 2]))
def test_a_cap_that_is_off_by_a_byte_is_noticed(allocator: Allocator, cap_bytes: int, off: int) -> None:
    allocator.total_bytes = 85_017_624_576
    allocator.allowed_bytes = cap_bytes
    require_held(cap_bytes)
    with pytest.raises(NotMeasuredError, match="where a cap of"):
        require_held(cap_bytes + off)


@pytest.mark.parametrize("asked", ["GPU-AAAA-1", "GPU-aaaa-1", "MIG-7", "", "0"])
def test_the_card_that_was_named_is_measured(asked: str) -> None:
    require_named(asked, "aaaa-1")


def test_another_card_than_the_one_that_was_named_is_not_measured() -> None:
    with pytest.raises(NotMeasuredError, match="aaaa-1 where GPU-bbbb-2"):
        require_named("GPU-bbbb-2", "aaaa-1")
