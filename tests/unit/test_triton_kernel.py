"""A Triton kernel that cannot be made: what the log says of the reason."""

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
