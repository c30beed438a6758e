"""A remembered result is what the operation gives: the same tensor, the same storages, the same work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from calibrate.probes.simulated import ledger
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.meta_results import MetaResults
from calibrate.probes.simulated.operations import about
from calibrate.probes.simulated.region_events import RegionEvents

aten = torch.ops.aten


class Reports:
    """The sizes of the storages that were reported."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def alloc(self, n_bytes: int, owner: str) -> int:
        self.sizes.append(n_bytes)
        return len(self.sizes)

    def free(self, block: int) -> None:
        self.sizes.append(-block)

    def play(self, recording: RegionEvents) -> dict[int, int]:
        return recording.onto(self)


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


CALLS: dict[str, Callable[[], Any]] = {
    "two layouts": lambda: on_meta(4, 6) * on_meta(6, 4).t(),
    "a repeated row": lambda: on_meta(4, 6) + on_meta(1, 6).expand(4, 6),
    "a whole number": lambda: on_meta(4, dtype=torch.int64) * 2,
    "a fraction": lambda: on_meta(4, dtype=torch.int64) * 2.0,
    "a truth value": lambda: on_meta(4, dtype=torch.bool) * True,
    "changed in place": lambda: on_meta(4, 6).mul_(on_meta(6)).sin_(),
    "a product of matrices": lambda: on_meta(2, 4, 6) @ on_meta(6, 3),
    "joined": lambda: torch.cat([on_meta(2, 3), on_meta(4, 3)], dim=0),
    "numbers in a row": lambda: torch.arange(7, device="meta"),
    "several results": lambda: torch.max(on_meta(4, 6), dim=1),
    "another type": lambda: on_meta(4).to(torch.bfloat16),
    "the channels last": lambda: on_meta(1, 2, 3, 4).to(memory_format=torch.channels_last).clone() + 1,
}


def observed(call: Callable[[], Any]) -> tuple[Any, ...]:
    """What a call gives on the simulated card, reported and counted."""
    reports = Reports()
    kernels = CudaKernels((8, 6))
    with Ledger(reports, kernels):
        out = call()
        leaves = [out] if isinstance(out, Tensor) else list(out)
    layouts = [(leaf.shape, leaf.stride(), leaf.dtype, leaf.untyped_storage().nbytes()) for leaf in leaves]
    return layouts, [type(leaf) for leaf in leaves], reports.sizes, kernels.work.counts


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_gives_the_same_whether_or_not_it_is_remembered(
    call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other calls come first, and must not serve this one: equal numbers of other types give other results.
    shared = MetaResults()
    monkeypatch.setattr(ledger, "_RESULTS", shared)
    for other in CALLS.values():
        observed(other)
    remembered = observed(call)
    monkeypatch.setattr(ledger, "_RESULTS", MetaResults())
    assert remembered == observed(call)


def test_a_call_with_the_same_layouts_is_found_again() -> None:
    results = MetaResults()
    args = (on_meta(4, 6), on_meta(6))
    key = results.key(about(aten.mul.Tensor), args, {})
    assert results.find(key) is None
    out = aten.mul.Tensor(*args)
    results.remember(key, args, {}, out, (1, 2))
    found = results.find(results.key(about(aten.mul.Tensor), (on_meta(4, 6), on_meta(6)), {}))
    assert found is not None
    assert found.work == (1, 2)
    assert found.result(args).stride() == out.stride()


def test_a_result_that_shares_a_storage_is_never_remembered() -> None:
    results = MetaResults()
    args = (on_meta(4, 6), [24])
    key = results.key(about(aten._unsafe_view.default), args, {})
    results.remember(key, args, {}, aten._unsafe_view.default(*args), ())
    assert results.find(key) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_default_dtype_is_another_call(dtype: torch.dtype) -> None:
    def made() -> tuple[Any, ...]:
        return observed(lambda: torch.arange(7, device="meta") * torch.zeros(7, device="meta"))

    usual = made()
    torch.set_default_dtype(dtype)
    try:
        assert made()[0] != usual[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert made() == usual


class Wrapped(torch.nn.Parameter):
    """A tensor of another class, as quantised weights are."""


@pytest.mark.parametrize(
    ("func", "args"),
    [
        pytest.param(aten.mul.Tensor, (on_meta(4), torch.ones(())), id="a number on the host"),
        pytest.param(aten.mul.Tensor, (on_meta(4), Wrapped(on_meta(4))), id="a tensor of another class"),
        pytest.param(aten.resize_.default, (on_meta(4), [8]), id="a storage that grows"),
        pytest.param(aten.copy_.default, (on_meta(4), on_meta(4)), id="a copy"),
        pytest.param(aten.sort.default, (on_meta(4),), id="two results"),
        pytest.param(aten.view.default, (on_meta(4), [2, 2]), id="a view"),
    ],
)
def test_what_is_not_known_from_layouts_is_computed(func: Any, args: tuple[Any, ...]) -> None:
    assert MetaResults().key(about(func), args, {}) is None


def test_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrate.probes.simulated.meta_results.MOST_RESULTS", 2)
    results = MetaResults()
    keys = []
    for length in (1, 2, 3):
        args = (on_meta(length),)
        keys.append(results.key(about(aten.neg.default), args, {}))
        results.remember(keys[-1], args, {}, aten.neg.default(*args), ())
    assert [results.find(key) is not None for key in keys] == [False, False, True]
