"""When the language model has left the card, nothing keeps its one allocation: after a song as after an error."""

import gc
import sys
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Offload, Quantization
from acestep.lm import int8_product, products
from acestep.lm.backends.base import StepsWritten
from acestep.lm.backends.pt import PtBackend
from acestep.memory.placement import LANGUAGE_MODEL, Placement
from calibrate.probes.simulated.full_size_lm import FirstAllowed
from tests.copying_cards import EagerCard
from tests.grammars import Counted, job_of
from tests.int8_on_cpu import int8_products_by

JOBS = [job_of(Counted(6, range(900)), range(20 + 7 * i), range(9), seed=i, max_tokens=6) for i in range(2)]


@pytest.fixture(autouse=True)
def _no_cycles_are_collected() -> Iterator[None]:
    """A reference cycle would keep the memory too. One collection: each looks at all objects of earlier tests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watching(EagerCard):
    """A card that notes, when its cache is emptied, how many of its allocations are still in use."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[weakref.ref[Any]] = []
        self.in_use: list[int] = []

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        buffer = super().reserve(n_bytes, owner)
        self.taken.append(weakref.ref(buffer.untyped_storage()))
        return buffer

    def empty_cache(self) -> None:
        self.in_use.append(sum(one() is not None for one in self.taken))


@pytest.mark.parametrize("act", ["write", "rehearse"])
def test_when_the_weights_have_left_nothing_keeps_their_memory(act: str) -> None:
    """One view that is left would keep all of it."""
    card = Watching()
    _use(act, card, lambda *_: None)
    assert card.in_use == [0]


def _use(act: str, card: CpuDevice, written: StepsWritten, quantization: Quantization | None = None) -> None:
    """Write or rehearse songs with a model that enters the card for it."""
    model: LanguageModel = build_lm("tiny", dtype=torch.float32, vocab_size=900)
    if quantization is not None:
        quantize_lm(model, quantization)
    placement = Placement({LANGUAGE_MODEL: model.module}, (), Offload.CPU_DIT, card)
    backend = PtBackend(model, card, use=lambda: placement.use(LANGUAGE_MODEL), chooser=FirstAllowed())
    if act == "write":
        backend.write(JOBS, written)
    else:
        backend.rehearse(JOBS)


def _stop(*_: object) -> Any:
    raise KeyboardInterrupt


def _full(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("act", ["write", "rehearse"])
def test_while_a_product_fails_nothing_keeps_the_memory_of_the_weights(
    act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each product once, of prompts, of the head and of steps; the last frame of its traceback has a weight."""
    product, before = products.Products.product, 0
    calls: list[int] = []

    def stopped(self: products.Products, rows: Tensor, weight: Tensor) -> Tensor:
        calls.append(len(weight))
        return product(self, rows, weight) if len(calls) <= before else _stop(rows, weight)

    monkeypatch.setattr(products.Products, "product", stopped)
    while True:
        calls.clear()
        card = Watching()
        try:
            _use(act, card, lambda *_: None)
        except KeyboardInterrupt:
            assert card.in_use == [0], f"product {before}, with {calls[-1]} outputs"
            before += 1
        else:
            break
    assert before > 2 * len(JOBS), "products were there to fail"


def test_while_an_error_of_the_listener_is_raised_nothing_keeps_the_memory_of_the_weights() -> None:
    card = Watching()
    with pytest.raises(KeyboardInterrupt):
        _use("write", card, _stop)
    assert card.in_use == [0]


def test_while_the_int8_kernel_runs_out_of_memory_nothing_keeps_that_of_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels, card = ModuleType("acestep.lm.int8_kernel"), Watching()
    kernels.launch_product = _full  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acestep.lm.int8_kernel", kernels)
    card.has_triton = True
    with int8_products_by(int8_product._on_cuda), pytest.raises(torch.OutOfMemoryError):
        _use("rehearse", card, lambda *_: None, Quantization.INT8)
    assert card.in_use == [0]
