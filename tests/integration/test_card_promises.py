"""The promises that `tests/gpu` checks on a card hold for simulated devices in ordinary memory, and the checks find
broken ones.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from acestep.devices.base import DeviceEvent
from acestep.devices.cpu import CpuDevice
from acestep.dit.attention import Kernels
from acestep.knobs import Offload, Quantization
from tests.copying_cards import EagerCard, LateCard
from tests.on_a_card import require_nothing_left, require_order, require_right_attention, songs_of_every_placement
from tests.small_card import SmallCard


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_every_placement_makes_the_same_song(quantization: Quantization | None) -> None:
    songs = songs_of_every_placement(EagerCard, quantization, [Offload.NONE, Offload.STREAM_ENCODERS])
    assert np.array_equal(*songs)


@pytest.mark.parametrize("card", [CpuDevice, EagerCard, LateCard])
def test_copies_keep_their_order(card: type[CpuDevice]) -> None:
    require_order(card(), lambda: None)


class Overtaking(EagerCard):
    """Copies that arrive before earlier work has read their target."""

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        self._slot = torch.zeros(n_bytes, dtype=torch.uint8)
        return self._slot

    def mark(self) -> DeviceEvent:
        return None

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        return lambda: None

    def wait(self, mark: DeviceEvent) -> None:
        """Too early."""


def test_a_copy_that_is_read_too_early_is_noticed() -> None:
    with pytest.raises(AssertionError, match="before it had arrived"):
        require_order(Overtaking(), lambda: None)


def test_generations_and_failures_leave_nothing() -> None:
    card = SmallCard()

    def refuse() -> None:
        card.denoise_refusals = 1

    require_nothing_left(card, Offload.CPU, _live_bytes, refuse, generations=3)


def test_a_card_that_keeps_something_is_noticed() -> None:
    kept: list[Tensor] = []

    class Keeping(SmallCard):
        def upload(self, host: Tensor, owner: str) -> Tensor:
            if owner == "noise":
                kept.append(torch.empty(100))
            return super().upload(host, owner)

    with pytest.raises(AssertionError):
        require_nothing_left(Keeping(), Offload.CPU, lambda: len(kept), lambda: None, generations=2)


@pytest.mark.parametrize(
    "kernels", [Kernels(grouped=True), Kernels(grouped=False), Kernels(grouped=True, in_blocks=True)]
)
def test_attention_is_that_of_a_dense_mask(kernels: Kernels) -> None:
    require_right_attention(kernels, CpuDevice(), rows=700, tolerance=1e-5)


def test_a_window_that_is_off_by_one_is_noticed() -> None:
    class Narrow(Kernels):
        def banded_(self, query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
            return super().banded_(query, key, value, window - 1)

    with pytest.raises(AssertionError, match="banded"):
        require_right_attention(Narrow(grouped=True), CpuDevice(), rows=700, tolerance=1e-3)


def _live_bytes() -> int:
    """Of tensors that anything still refers to; the host's stand-in for what a card's allocator counts."""
    import gc

    gc.collect()
    found = {id(o): o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) is Tensor and not o.is_meta}
    return sum(found.values())
