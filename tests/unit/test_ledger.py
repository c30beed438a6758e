"""The ledger counts what a card would hold: no view, no host tensor, no wrapper, and nothing twice."""

import gc
from bisect import insort
from collections.abc import Callable

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
from calibrate.probes.simulated.live import LiveBook
from calibrate.probes.simulated.trace import ALLOWANCE
from tests.simulated_card import Card, meta


def test_views_allocate_nothing_and_frees_are_reported() -> None:
    card = Card()
    with card.on():
        x = meta(4, MIB)
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
    "a result written into it": lambda x: torch.add(meta(4 * MIB), 1, out=x),
    "its storage, then an operation": lambda x: (x.untyped_storage().resize_(8 * MIB), x.add_(1)),
    "its storage alone": lambda x: x.untyped_storage().resize_(8 * MIB),
}


@pytest.mark.parametrize("grow", GROWTHS.values(), ids=GROWTHS)
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
def test_a_storage_that_grows_counts_with_its_new_size(grow: Callable[[Tensor], object]) -> None:
    card = Card()
    with card.on():
        card.device.begin_stage("denoise")
        x = meta(MIB)
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
        x = meta(MIB)
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
            F.linear(meta(3, 8, dtype=torch.float32), torch.zeros(4, 8))
        assert torch.is_tensor(meta(3, 8) * torch.tensor(2.0)), "numbers without dimensions mix as on a card"


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
            F.linear(meta(8, 16), meta(32, 16))
    gc.collect()
    assert card.book.counted_bytes == MATRIX_WORKSPACE


def test_convolution_workspaces_count_towards_caps_only() -> None:
    card = Card()
    conv = nn.Conv1d(64, 64, 7, padding=3, dtype=torch.bfloat16, device="meta")
    with card.on():
        x = meta(1, 64, 65_536)
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
        query = meta(1, heads, rows, 64, dtype=dtype)
        key = value = meta(1, 2 if grouped else heads, rows, 64, dtype=dtype)
        bias = meta(rows, rows, dtype=dtype) if mask else None
        card.book.begin_stage("denoise")
        before = card.book.counted_bytes
        F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=grouped)
        peak = card.book.end_stage()[0] - before
    scores = heads * rows * rows * query.element_size()
    assert (peak >= scores) is quadratic


def test_an_out_of_memory_error_leaves_nothing_behind() -> None:
    card = Card(cap_bytes=64 * MIB)
    with card.on():
        kept = meta(8 * MIB)

        def grow() -> None:
            parts = [meta(8 * MIB) for _ in range(9)]
            raise AssertionError(f"{len(parts)} parts do not fit")

        refused = False
        try:
            grow()
        except torch.OutOfMemoryError as error:
            refused = "simulated" in str(error)
        assert refused
        assert card.book.counted_bytes == kept.nbytes


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
