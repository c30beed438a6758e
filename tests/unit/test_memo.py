"""Repeating the allocations of a call is the same as computing it, and a call that only looks alike is refused."""

import random
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.quantize import quantize
from acestep.knobs import Quantization
from acestep.units import MIB
from calibrate.probes.simulated.memo import Memo, Regions, UnlikeCallsError
from calibrate.probes.simulated.region_events import Event
from tests.simulated_card import Card, meta


class Doubler(nn.Module):
    """A region with temporaries inside and a new tensor as its result."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) * (x + 2)


class Adder(nn.Module):
    """A region that works in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(x * 2)


class Mixer(nn.Module):
    """A region with a matrix product, whose workspace comes with the first one of a run."""

    def forward(self, x: Tensor) -> Tensor:
        square = x.view(1024, -1)
        return (square @ square.T).flatten().repeat(x.numel() // 1024**2)


def _events(card: Card, memoise: bool, module: nn.Module, known: Regions | None = None) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    book_alloc = card.book.alloc

    def alloc(n_bytes: int, owner: str) -> int:
        block = book_alloc(n_bytes, owner)
        seen.append((n_bytes, card.book.counted_bytes))
        return block

    card.book.alloc = alloc  # type: ignore[method-assign]
    kinds = (type(module),) if memoise else ()
    with card.on(), Memo(card.ledger, card.tape, known or Regions()).patched(kinds):
        x = meta(MIB)
        for _ in range(4):
            x = module(x)
    return seen


class Keeper(nn.Module):
    """Keeps the last argument, or a view of it."""

    def __init__(self, kept: slice | None) -> None:
        super().__init__()
        self.kept, self.last = kept, None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x if self.kept is None else x[self.kept]
        return x + 1


@pytest.mark.parametrize("kept", [None, slice(1, 2)], ids=["the argument", "a view"])
def test_calls_that_keep_an_argument_are_all_computed(kept: slice | None) -> None:
    assert _events(Card(), True, Keeper(kept)) == _events(Card(), False, Keeper(kept))


@pytest.mark.parametrize("module", [Doubler(), Adder()])
def test_a_replayed_region_is_the_region(module: nn.Module) -> None:
    assert _events(Card(), True, module) == _events(Card(), False, module)


class Always(random.Random):
    """Chooses every call."""

    def randrange(self, *_: int) -> int:
        return 0


@pytest.mark.parametrize("module", [Doubler(), Adder(), Mixer()])
def test_calls_that_are_checked_and_alike_change_nothing(module: nn.Module) -> None:
    assert _events(Card(), True, module, Regions(Always())) == _events(Card(), False, module)


class Numbered(nn.Module):
    """Takes other memory from the third call on, which its weights and arguments do not tell."""

    def __init__(self, later: Callable[[Tensor, list[Tensor]], Tensor]) -> None:
        super().__init__()
        self.later, self.calls, self.kept = later, 0, []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.later(x, self.kept) if self.calls > 2 else x + 1


def _kept(x: Tensor, kept: list[Tensor]) -> Tensor:
    kept.append(x + 1)
    return x + 1


@pytest.mark.parametrize(
    "later",
    [
        _kept,
        lambda x, _: (x + 1) + 1,
        lambda x, _: torch.cat([x, x])[: len(x)] + 1,
        lambda x, _: x.add_(1),
        lambda x, kept: kept.append(x) or x + 1,
        lambda x, kept: kept.append(x[1:]) or x + 1,
    ],
    ids=["keeps a copy", "a temporary", "a larger temporary", "in place", "keeps its input", "keeps a view"],
)
def test_a_call_that_only_looks_alike_is_refused_by_name(later: Callable[[Tensor, list[Tensor]], Tensor]) -> None:
    with pytest.raises(UnlikeCallsError, match="Numbered"):
        _events(Card(), True, Numbered(later), Regions(Always()))


@pytest.mark.parametrize("module", [Doubler(), Adder(), Mixer()])
def test_what_is_known_of_calls_holds_in_the_next_run(module: nn.Module) -> None:
    known = Regions()
    first, second = (_events(Card(), True, module, known) for _ in range(2))
    assert known.by_call
    assert first == second == _events(Card(), False, module)


def _quantized(quantization: Quantization) -> nn.Module:
    layers = nn.Sequential(nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16, device="meta"))
    quantize(layers, quantization)
    return layers[0]


def _products(module: nn.Module, known: Regions) -> list[Event]:
    card, events = Card(), list[Event]()
    with card.on(), Memo(card.ledger, card.tape, known).patched((type(module),)):
        x = meta(16, 1024)
        module(x)  # The first product of a run also allocates the workspace.
        with card.tape.record(events):
            module(x)
    first = min(event.block for event in events)
    return [event._replace(block=event.block - first) for event in events]


def test_weights_of_another_format_are_another_region() -> None:
    modules = {quantization: _quantized(quantization) for quantization in Quantization}
    alone = {quantization: _products(module, Regions()) for quantization, module in modules.items()}
    assert alone[Quantization.INT8] != alone[Quantization.W8A8]
    for order in permutations(Quantization):
        known = Regions()
        assert [_products(modules[quantization], known) for quantization in order] == [alone[name] for name in order]


def test_a_replay_that_is_refused_unwinds() -> None:
    card = Card(cap_bytes=26 * MIB)
    module = Doubler()
    with card.on(), Memo(card.ledger, card.tape, Regions()).patched((Doubler,)):
        x = meta(2 * MIB)
        module(x)
        full = [meta(8 * MIB)]
        before = card.book.counted_bytes
        refused = False
        try:
            module(x)
        except torch.OutOfMemoryError:
            refused = True
        assert refused
        assert card.book.counted_bytes == before
        full.clear()
        module(x)
