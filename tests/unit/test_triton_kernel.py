"""A Triton kernel that cannot be made: what the log says of the reason, and where it is tried all the same."""

import logging

import pytest
import torch

from acestep.devices.triton_kernel import TritonKernel


def test_the_log_says_what_went_wrong_and_not_where_in_the_kernel(caplog: pytest.LogCaptureFixture) -> None:
    def launch() -> bool:
        try:
            raise ValueError("tl.sine is unknown")
        except ValueError as error:
            # As Triton does: the place and the source first.
            raise RuntimeError("at 17:13:\n    sine = tl.sine(x)\n           ^") from error

    with caplog.at_level(logging.WARNING):
        assert not TritonKernel("decoding").computed(torch.ones(1), launch)
    (record,) = caplog.records
    assert record.getMessage().endswith("tl.sine is unknown")


def test_after_a_failure_it_is_tried_on_another_card_and_in_another_dtype() -> None:
    kernel, tries = TritonKernel("decoding"), []

    def launch() -> bool:
        tries.append(1)
        raise RuntimeError("out of resources")

    cards = [torch.empty(1, device=device) for device in ("cpu", "meta")]
    places = [card.to(dtype) for card in cards for dtype in (torch.float32, torch.bfloat16)]
    for number, near in enumerate(places):
        assert kernel.compiles(near)
        assert not kernel.computed(near, launch)
        assert not kernel.compiles(near)
        assert not kernel.computed(near, launch)
        assert len(tries) == number + 1
