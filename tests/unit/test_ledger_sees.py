"""The ledger sees what is no operation, and an operation that fails on the card stays a failure."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import Trace

AMPERE = (8, 6)


def on_card(work: Callable[[Tensor], object]) -> list[int]:
    """The sizes that some work takes and gives back, with a tensor of four bytes on the card."""
    trace = Trace()
    with Ledger(trace, CudaKernels(AMPERE)):
        work(torch.empty(1, device="meta"))
    return list(trace.sizes)


def test_a_storage_that_grows_and_shrinks_again_is_seen_while_it_is_large() -> None:
    def work(tensor: Tensor) -> None:
        tensor.untyped_storage().resize_(4_096)
        tensor.untyped_storage().resize_(4)

    assert 4_096 in on_card(work)


def test_a_storage_is_resized_as_usual_afterwards() -> None:
    before = torch.UntypedStorage.resize_
    on_card(lambda tensor: tensor + 1)
    assert torch.UntypedStorage.resize_ is before
    assert torch.UntypedStorage(4).resize_(8).nbytes() == 8


READS: dict[str, Callable[[Tensor], object]] = {
    "a number": float,
    "a truth": bool,
    "places of values": lambda tensor: tensor.nonzero(),
    "a mask": lambda tensor: tensor[tensor > 0],
    "equality": lambda tensor: torch.equal(tensor, tensor),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_whose_error_is_caught_is_an_error_all_the_same(read: str) -> None:
    def work(tensor: Tensor) -> None:
        with pytest.raises((RuntimeError, NotImplementedError)):
            READS[read](tensor)

    with pytest.raises(RuntimeError, match="the code went on, and on a real card it would go another way"):
        on_card(work)


def test_an_error_that_is_not_caught_stays_itself() -> None:
    def fail(_: Tensor) -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        on_card(fail)


def test_what_fails_on_the_host_alone_says_nothing_of_the_card() -> None:
    def work(_: Tensor) -> None:
        with pytest.raises(RuntimeError):
            torch.zeros(2) @ torch.zeros(3)

    on_card(work)
