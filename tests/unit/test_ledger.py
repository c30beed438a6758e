"""The ledger counts what a card would hold: no view, no host tensor, no wrapper, and nothing twice."""

import gc
import random
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep.checkpoints.quantize import quantize
from acestep.knobs import Quantization
from acestep.limits.capabilities import MATRIX_WORKSPACE
from acestep.memory.tensors import map_storage
from acestep.units import MIB
from calibrate.probes.simulated import allocator
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import ALLOWANCE, Ledger
from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.memo import Memo, Regions, Tape, UnlikeCallsError


class Card:
    """A simulated card under a cap, its modes active inside `on`."""

    def __init__(self, cap_bytes: int = 1 << 40) -> None:
        self.book = LiveBook(cap_bytes)
        self.tape = Tape(self.book)
        self.kernels = CudaKernels((8, 6))
        self.ledger = Ledger(self.tape, self.kernels)
        self.device = SimulatedDevice(self.ledger, self.book, dtype=torch.bfloat16, grouped_attention=True)

    @contextmanager
    def on(self) -> Iterator[None]:
        with self.kernels, self.ledger, torch.no_grad():
            yield


def _meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def test_views_allocate_nothing_and_frees_are_reported() -> None:
    card = Card()
    with card.on():
        x = _meta(4, MIB)
        assert card.book.counted_bytes == 8 * MIB
        y = x[1:3].reshape(2, -1).transpose(0, 1)
        assert card.book.counted_bytes == 8 * MIB
        z = x + 1
        assert card.book.counted_bytes == 16 * MIB
        del x, z
        assert card.book.counted_bytes == 8 * MIB, "the view keeps its storage"
        del y
    assert card.book.counted_bytes == 0


GROWTHS = {
    "resize_": lambda x: x.resize_(4 * MIB),
    "a result written into it": lambda x: torch.add(_meta(4 * MIB), 1, out=x),
    "its storage, then an operation": lambda x: (x.untyped_storage().resize_(8 * MIB), x.add_(1)),
    "its storage alone": lambda x: x.untyped_storage().resize_(8 * MIB),
}


@pytest.mark.parametrize("grow", GROWTHS.values(), ids=GROWTHS)
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
def test_a_storage_that_grows_counts_with_its_new_size(grow: Callable[[Tensor], object]) -> None:
    card = Card()
    with card.on():
        card.device.begin_stage("denoise")
        x = _meta(MIB)
        grow(x)
        peak, _ = card.device.end_stage()
        assert card.book.counted_bytes == x.untyped_storage().nbytes() == 8 * MIB
        assert peak >= 10 * MIB, "the old bytes are freed after the new ones are taken"
        del x
    assert card.book.counted_bytes == 0


def test_a_storage_that_is_given_back_by_its_size_counts_nothing() -> None:
    card = Card()
    with card.on():
        card.device.begin_stage("denoise")
        x = _meta(MIB)
        x.untyped_storage().resize_(0)
        card.device.end_stage()
        assert card.book.counted_bytes == 0
        del x
    assert card.book.counted_bytes == 0


def test_host_tensors_do_not_count_and_a_download_takes_nothing() -> None:
    card = Card()
    with card.on():
        host = torch.zeros(MIB)
        assert card.book.counted_bytes == 0
        device = card.device.upload(host, "weights")
        back = device.to("cpu")
        assert back.device.type == "cpu"
        assert card.book.counted_bytes == device.nbytes


def test_mixing_host_and_device_is_refused_like_on_a_card() -> None:
    card = Card()
    with card.on():
        with pytest.raises(RuntimeError, match="mixes tensors on"):
            F.linear(_meta(3, 8, dtype=torch.float32), torch.zeros(4, 8))
        assert torch.is_tensor(_meta(3, 8) * torch.tensor(2.0)), "numbers without dimensions mix as on a card"


def test_quantised_weights_count_their_inner_tensors_only() -> None:
    linear = nn.Sequential(nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16, device="meta"))
    quantize(linear, Quantization.INT8)
    host = map_storage(linear[0].weight, lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype))
    card = Card()
    with card.on():
        entered = map_storage(host, lambda t: card.device.upload(t, "weights"))
        assert MIB <= card.book.counted_bytes <= MIB + 8192
        del entered


def test_the_matrix_product_workspace_is_taken_once_and_stays() -> None:
    card = Card()
    with card.on():
        for _ in range(3):
            F.linear(_meta(8, 16), _meta(32, 16))
    gc.collect()
    assert card.book.counted_bytes == MATRIX_WORKSPACE


def test_convolution_workspaces_count_towards_caps_only() -> None:
    card = Card()
    conv = nn.Conv1d(64, 64, 7, padding=3, dtype=torch.bfloat16, device="meta")
    with card.on():
        x = _meta(1, 64, 65_536)
        card.book.begin_stage("decode")
        y = conv(x)
        counted, reserved = card.book.end_stage()
    assert counted == x.nbytes + y.nbytes
    assert reserved >= counted + x.nbytes + y.nbytes


@pytest.mark.parametrize(
    ("mask", "grouped", "dtype", "quadratic"),
    [
        (False, True, torch.bfloat16, False),
        (True, False, torch.bfloat16, False),
        (True, True, torch.bfloat16, True),
        (False, True, torch.float32, True),
        (False, False, torch.float32, False),
    ],
)
def test_attention_takes_what_the_chosen_kernel_takes(
    mask: bool, grouped: bool, dtype: torch.dtype, quadratic: bool
) -> None:
    """Flash for unmasked half precision, memory-efficient without grouping, else math with all its scores."""
    card = Card()
    rows, heads = 1024, 8
    with card.on():
        query = _meta(1, heads, rows, 64, dtype=dtype)
        key = value = _meta(1, 2 if grouped else heads, rows, 64, dtype=dtype)
        bias = _meta(rows, rows, dtype=dtype) if mask else None
        card.book.begin_stage("denoise")
        before = card.book.counted_bytes
        F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=grouped)
        peak = card.book.end_stage()[0] - before
    scores = heads * rows * rows * query.element_size()
    assert (peak >= scores) is quadratic


def test_an_out_of_memory_error_leaves_nothing_behind() -> None:
    card = Card(cap_bytes=64 * MIB)
    with card.on():
        kept = _meta(8 * MIB)

        def grow() -> None:
            parts = [_meta(8 * MIB) for _ in range(9)]
            raise AssertionError(f"{len(parts)} parts do not fit")

        refused = False
        try:
            grow()
        except torch.OutOfMemoryError as error:
            refused = "simulated" in str(error)
        assert refused
        assert card.book.counted_bytes == kept.nbytes


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
        x = _meta(MIB)
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


def test_a_replay_that_is_refused_unwinds() -> None:
    card = Card(cap_bytes=26 * MIB)
    module = Doubler()
    with card.on(), Memo(card.ledger, card.tape, Regions()).patched((Doubler,)):
        x = _meta(2 * MIB)
        module(x)
        full = [_meta(8 * MIB)]
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


def test_allowance_is_an_owner_of_its_own() -> None:
    book = LiveBook()
    block = book.alloc(4 * MIB, ALLOWANCE)
    assert book.counted_bytes == 0
    assert book.allocator.allocated == 4 * MIB
    book.free(block)


def test_a_storage_that_the_collector_finds_in_the_middle_of_a_call_is_taken_back_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book = LiveBook()
    first, hole, last = (book.alloc(size * MIB, "x") for size in (2, 6, 2))
    book.free(hole)

    def collected(pool: list[object], entry: object) -> None:
        # The allocator is about to split the hole, which is neither live nor free, and whose neighbour dies.
        monkeypatch.undo()
        book.free(first)
        insort(pool, entry)  # type: ignore[type-var]

    monkeypatch.setattr(allocator, "insort", collected)
    split = book.alloc(3 * MIB, "x")
    assert book.counted_bytes == 5 * MIB
    for block in (last, split):
        book.free(block)
    assert [(segment.blocks[0].live, len(segment.blocks)) for segment in book.allocator.snapshot()] == [(False, 1)]
