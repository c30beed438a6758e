"""Weights in one allocation: found where they follow each other, nowhere else, and nothing else of a song changes."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from acestep.checkpoints.catalog import LM_ARCHITECTURES
from acestep.checkpoints.lm import build_lm, quantize_lm
from acestep.checkpoints.quantize import quantize
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Knobs, Offload, Quantization
from acestep.limits.think_memory import THINK_SHARE_BESIDE, lm_weight_bytes
from acestep.limits.workspace import SEGMENT_GRAIN, up_to_grain
from acestep.lm.backends.pt import PtBackend
from acestep.lm.job import Job
from acestep.lm.layer_products import in_a_row
from acestep.memory.placement import LANGUAGE_MODEL, Placement
from acestep.memory.ring import Part
from acestep.memory.tensors import Arena
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.full_size_lm import full_size_lm
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import Trace
from tests.copying_cards import EagerCard, LateCard
from tests.grammars import Counted, job_of
from tests.recording_card import RecordingCard

AMPERE = (8, 6)
HEIGHTS = st.lists(st.integers(1, 40), min_size=2, max_size=4)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def _linears(heights: Sequence[int], width: int, dtype: torch.dtype) -> nn.ModuleList:
    layers = nn.ModuleList(nn.Linear(width, height, bias=False) for height in heights)
    return layers.to(dtype).requires_grad_(False)


def _weights(layers: nn.ModuleList) -> list[Tensor]:
    return list(layers.parameters())


def _simulated(free_bytes: int = 0) -> tuple[SimulatedDevice, Ledger, Trace]:
    trace, kernels = Trace(), CudaKernels(AMPERE)
    ledger = Ledger(trace, kernels)
    book = TraceBook(trace, free_bytes)
    return SimulatedDevice(ledger, book, dtype=torch.bfloat16, grouped_attention=True), ledger, trace


@given(heights=HEIGHTS, width=st.integers(1, 160), dtype=DTYPES)
def test_weights_are_in_a_row_where_no_gap_is_left_between_them(
    heights: list[int], width: int, dtype: torch.dtype
) -> None:
    layers = _linears(heights, width, dtype)
    expected = torch.cat(_weights(layers))
    gapless = all(weight.nbytes % Arena.ALIGNMENT == 0 for weight in _weights(layers)[:-1])
    assert in_a_row(_weights(layers)) is None, "each has an allocation of its own"
    Part("part", list(layers.modules()), in_one_piece=True).enter(EagerCard())
    joined = in_a_row(_weights(layers))
    assert (joined is not None) == gapless
    if joined is not None:
        assert torch.equal(joined, expected)
        assert joined.data_ptr() == _weights(layers)[0].data_ptr(), "a view, no copy"


@given(heights=HEIGHTS, width=st.integers(1, 160), dtype=DTYPES)
def test_the_simulated_card_finds_the_same(heights: list[int], width: int, dtype: torch.dtype) -> None:
    found = []
    for card in (EagerCard(), _simulated()[0]):
        layers = _linears(heights, width, dtype)
        Part("part", list(layers.modules()), in_one_piece=True).enter(card)
        joined = in_a_row(_weights(layers))
        found.append(joined if joined is None else (joined.shape, joined.stride(), joined.storage_offset()))
    assert found[0] == found[1]


def _unlike() -> Iterator[tuple[str, list[Tensor]]]:
    """Weights of one allocation that are no single matrix."""
    whole = torch.randn(12, 64)
    first, second, third = (nn.Parameter(part, requires_grad=False) for part in torch.split(whole, 4))
    yield "another order", [second, first]
    yield "one left out", [first, third]
    yield "one twice", [first, first]
    yield "another width", [first, nn.Parameter(whole[4:8].view(8, 32), requires_grad=False)]
    yield "another type", [first, nn.Parameter(whole[4:8].view(torch.int32), requires_grad=False)]
    yield "another allocation", [first, nn.Parameter(whole[4:8].clone(), requires_grad=False)]
    yield "columns", [nn.Parameter(part, requires_grad=False) for part in torch.split(whole, 32, dim=1)]
    yield "turned", [nn.Parameter(whole[:4, :4].t(), requires_grad=False), second]
    yield "no parameters", list(torch.split(whole, 4))


@pytest.mark.parametrize(("what", "weights"), [pytest.param(*case, id=case[0]) for case in _unlike()])
def test_other_weights_are_not_in_a_row(what: str, weights: list[Tensor]) -> None:
    assert in_a_row(weights) is None, what


def test_quantised_weights_are_not_in_a_row() -> None:
    layers = _linears([32, 32, 32], 64, torch.float32)
    quantize(layers, Quantization.INT8)
    Part("part", list(layers.modules()), in_one_piece=True).enter(EagerCard())
    assert in_a_row(_weights(layers)) is None


@pytest.mark.parametrize("lm_id", LM_ARCHITECTURES)
def test_every_layer_of_the_real_models_has_its_weights_in_a_row(lm_id: str) -> None:
    model, (device, ledger, _) = full_size_lm(lm_id, None), _simulated()
    placement = Placement({LANGUAGE_MODEL: model.module}, (), Offload.CPU_DIT, device)
    with ledger, placement.use(LANGUAGE_MODEL):
        for layer in model.module.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for linears in ([attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]):
                assert in_a_row([linear.weight for linear in linears]) is not None


@pytest.mark.parametrize("quantization", [None, *Quantization])
@pytest.mark.parametrize("lm_id", LM_ARCHITECTURES)
def test_the_share_beside_the_weights_that_are_counted_covers_their_scales(
    lm_id: str, quantization: Quantization | None
) -> None:
    model = build_lm("dummy", lm_id, dtype=torch.bfloat16, materialise="meta")
    if quantization is not None:
        quantize_lm(model, quantization)
    taken = up_to_grain(Part(LANGUAGE_MODEL, list(model.module.modules()), in_one_piece=True).n_bytes)
    counted = lm_weight_bytes(Knobs(lm=lm_id, lm_quantization=quantization), 2)
    assert counted < taken <= counted * (1 + THINK_SHARE_BESIDE)


class CountedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the products with a matrix."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.linear)
        return func(*args, **(kwargs or {}))


JOBS = [job_of(Counted(6, range(900)), range(20 + 7 * i), range(9), seed=i, max_tokens=6) for i in range(2)]


def _written(
    name: str, card: CpuDevice, quantization: Quantization | None, jobs: Sequence[Job] = JOBS
) -> tuple[list[tuple[int, ...]], int, int]:
    """The tokens of two guided songs, the products for them, and the layers of the model, which is a part `name`."""
    torch.manual_seed(1)
    model = build_lm("tiny", dtype=torch.float32, vocab_size=900)
    if quantization is not None:
        quantize_lm(model, quantization)
    placement = Placement({name: model.module}, (), Offload.CPU_DIT, card)
    with CountedProducts() as counted:
        tokens = PtBackend(model, card, use=lambda: placement.use(name)).write(jobs, lambda *_: None)
    return tokens, counted.count, model.module.config.num_hidden_layers


@pytest.mark.parametrize("card", [EagerCard, LateCard])
@pytest.mark.parametrize("pinned_bytes", [0, 1 << 30])
def test_a_step_multiplies_three_times_less_often_and_writes_the_same_tokens(
    card: type[EagerCard], pinned_bytes: int
) -> None:
    apart, usual, layers = _written("another", card(pinned_bytes=pinned_bytes), None)
    tokens, fewer, _ = _written(LANGUAGE_MODEL, card(pinned_bytes=pinned_bytes), None)
    steps = len(tokens[0]) - 1
    assert tokens == apart
    assert len(tokens[0]) == JOBS[0].max_tokens
    assert fewer == usual - 3 * layers * steps


def test_a_recorded_step_multiplies_by_the_same_weights() -> None:
    jobs, card = [job_of(Counted(50, range(900)), range(20), range(9), max_tokens=50)], RecordingCard()
    tokens, _, _ = _written(LANGUAGE_MODEL, card, None, jobs)
    (tape,) = card.tapes
    assert tape.repeats > 40
    assert tokens == _written("another", EagerCard(), None, jobs)[0]


def test_a_quantised_model_computes_as_it_did() -> None:
    assert _written(LANGUAGE_MODEL, EagerCard(), Quantization.INT8) == _written("x", EagerCard(), Quantization.INT8)


@pytest.mark.parametrize("quantization", [None, Quantization.INT8])
def test_the_weights_take_one_allocation_of_whole_segments_and_their_bytes_cross_the_bus_once(
    quantization: Quantization | None,
) -> None:
    model = build_lm("tiny", dtype=torch.bfloat16, vocab_size=900)
    if quantization is not None:
        quantize_lm(model, quantization)
    device, ledger, trace = _simulated()
    placement = Placement({LANGUAGE_MODEL: model.module}, (), Offload.CPU_DIT, device)
    device.begin_stage("think")
    with ledger, placement.use(LANGUAGE_MODEL):
        held = placement.held_bytes
        (taken,) = [size for size in trace.sizes if size >= 0]
    device.end_stage()
    assert held <= taken < held + SEGMENT_GRAIN
    assert taken % SEGMENT_GRAIN == 0
    weights = {id(t): t for t in [*model.module.parameters(), *model.module.buffers()]}
    assert device.work["think"].transferred_bytes == sum(_bytes(t) for t in weights.values())


def _bytes(tensor: Any) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return int(tensor.nbytes)


class Refusing(EagerCard):
    """A card that has no room, or that fails while it copies."""

    def __init__(self, *, room: bool) -> None:
        super().__init__()
        self.room = room
        self.reserved_at_wait: list[bool] = []
        self._buffer: weakref.ref[Any] = weakref.ref(self)

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        if not self.room:
            raise torch.OutOfMemoryError("full")
        buffer = super().reserve(n_bytes, owner)
        self._buffer = weakref.ref(buffer.untyped_storage())
        return buffer

    def synchronize(self) -> None:
        self.reserved_at_wait.append(self._buffer() is not None)
        raise RuntimeError("the card is still gone")

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: object) -> object:
        super().fetch(pairs[:1], after)
        raise RuntimeError("the card is gone")


@pytest.mark.parametrize("room", [False, True])
def test_a_move_that_fails_changes_nothing(room: bool) -> None:
    layers = _linears([8, 8], 64, torch.float32)
    rest = _weights(layers)
    part = Part("part", list(layers.modules()), in_one_piece=True)
    card = Refusing(room=room)
    with pytest.raises(RuntimeError, match="the card is gone" if room else "full"):
        part.enter(card)
    assert card.reserved_at_wait == [True] * room, "copies that were started end before their memory is freed"
    assert [id(t) for t in _weights(layers)] == [id(t) for t in rest]
    assert not part.inside
