"""Streamed blocks: the right weights are there when a block computes, and nothing stays behind, whatever goes wrong."""

import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.checkpoints.quantize import quantize
from acestep.devices.base import DeviceEvent
from acestep.engine.pipeline import prepare
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.memory.placement import TRANSFORMER, Placement
from acestep.memory.tensors import CHUNK_BYTES, pin, slots
from acestep.units import MIB
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.live import LiveBook
from tests.copying_cards import EagerCard, LateCard
from tests.some import first_of

WIDTH = 32
INT8 = Quantization.INT8


def _stack(layers: int, quantization: Quantization | None = None) -> nn.Module:
    module = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(layers)))
    module.requires_grad_(False)
    if quantization:
        quantize(module, quantization)
    return module


@pytest.mark.parametrize("card", [EagerCard, LateCard])
@pytest.mark.parametrize("layers", [1, 2, 3, 7])
@pytest.mark.parametrize("quantization", [None, *Quantization])
def test_blocks_compute_as_if_they_were_resident(
    card: Callable[[], EagerCard], layers: int, quantization: Quantization | None
) -> None:
    torch.manual_seed(layers)
    module, x = _stack(layers, quantization), torch.randn(5, WIDTH)
    expected = module(module(x))
    device = card()
    placement = Placement({TRANSFORMER: module}, list(module), Offload.STREAM, device)
    with placement.use(TRANSFORMER):
        assert torch.equal(module(module(x)), expected), "a library's own loop calls the layers"
    with placement.use(TRANSFORMER):
        hidden = x
        for layer in [*module, *module]:
            with placement.use_block(layer):
                hidden = layer[1](layer[0](hidden))
    assert torch.equal(hidden, expected), "our own loop uses what is inside them"
    assert device.reserved == 2 * min(2, layers), "two slots for each use, whatever the number of layers"
    most = 2 * layers if layers <= 2 else 4 * layers + 2
    assert device.copies <= most, "a block is copied once a turn, and not at all while it is still there"


def test_the_next_block_is_on_its_way_before_this_one_computes() -> None:
    device = EagerCard()
    module = _stack(4)
    placement = Placement({TRANSFORMER: module}, list(module), Offload.STREAM, device)
    with placement.use(TRANSFORMER):
        for turn, layer in enumerate(module):
            with placement.use_block(layer):
                assert device.copies == turn + 2


class OnceRefusing(EagerCard):
    """A card whose copy number `at` fails after the first of its tensors."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def fetch(self, pairs: Sequence[tuple[Tensor, Tensor]], after: DeviceEvent) -> DeviceEvent:
        if self.copies == self.at:
            super().fetch(pairs[:1], after)
            raise torch.OutOfMemoryError("full")
        return super().fetch(pairs, after)


@pytest.mark.parametrize("at", range(9))
def test_after_a_copy_that_failed_the_blocks_can_be_used_again(at: int) -> None:
    module, x, device = _stack(3), torch.randn(5, WIDTH), OnceRefusing(at)
    expected, hosts = module(x), list(module.parameters())
    placement = Placement({TRANSFORMER: module}, list(module), Offload.STREAM, device)

    def turn() -> Tensor:
        hidden = x
        for layer in module:
            with placement.use_block(layer):
                hidden = layer[1](layer[0](hidden))
        return hidden

    with placement.use(TRANSFORMER):
        refused = 0
        for _ in range(5):
            try:
                assert torch.equal(turn(), expected)
            except torch.OutOfMemoryError:
                refused += 1
                assert all(now is host for now, host in zip(module.parameters(), hosts, strict=True))
    assert refused == 1


def test_pinned_host_weights_exist_once_and_stay_what_they_were() -> None:
    module = _stack(3)
    module[2][0].weight = module[0][0].weight
    values = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    before = [weakref.ref(tensor.untyped_storage()) for tensor in module.parameters()]
    placement = Placement({"text_encoder": module}, [], Offload.CPU, EagerCard(pinned_bytes=CHUNK_BYTES))
    with placement.use("text_encoder"):
        assert module[2][0].weight is module[0][0].weight
    gc.collect()
    assert all(storage() is None for storage in before), "the pageable copies are gone"
    assert module[2][0].weight is module[0][0].weight
    assert all(torch.equal(tensor, values[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("room", [0, 5_000, 9_000, CHUNK_BYTES])
def test_what_cannot_be_pinned_stays_as_it_is(room: int) -> None:
    tensors = [torch.randn(1_000), torch.arange(5), torch.randn(40, 50).T]
    pinned = pin(tensors, EagerCard(pinned_bytes=room))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(pinned, tensors, strict=True))
    assert (pinned[0] is tensors[0]) == (room < 12_288)
    large = torch.empty(CHUNK_BYTES + 1, dtype=torch.uint8)
    assert pin([large], EagerCard(pinned_bytes=1 << 40)) == [large]


def test_what_is_pinned_already_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: set[int] = set()
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: tensor.untyped_storage().data_ptr() in locked)
    card, fresh = EagerCard(pinned_bytes=MIB), torch.ones(2_048)
    resting = pin([torch.zeros(1_024), torch.ones(3, 5)], card)
    locked |= {tensor.untyped_storage().data_ptr() for tensor in resting}
    left = card.pinned_bytes
    again = pin([resting[0], fresh, resting[1]], card)
    assert again[0] is resting[0]
    assert again[2] is resting[1]
    assert again[1] is not fresh
    assert torch.equal(again[1], fresh)
    assert left - card.pinned_bytes == fresh.nbytes


class _StageError(Exception):
    pass


class Card:
    """A simulated card under a cap."""

    def __init__(self, cap_bytes: int = NO_CAP) -> None:
        self.book = LiveBook(cap_bytes)
        self.ledger = Ledger(self.book, CudaKernels((8, 6)))
        self.device = SimulatedDevice(self.ledger, self.book, dtype=torch.bfloat16, grouped_attention=True)


def _resting(quantization: Quantization | None) -> Components:
    components = build("tiny", Variant.TURBO, dtype=torch.bfloat16, materialise="meta")
    prepare(components, Knobs(quantization=quantization))
    rest_on_host(components.modules().values())
    return components


@pytest.mark.parametrize(
    ("offload", "quantization"),
    first_of(
        [(Offload.NONE, None), (Offload.STREAM, INT8), (Offload.CPU_DIT, INT8), (Offload.STREAM_ENCODERS, None)], 2
    ),
)
def test_after_twenty_uses_and_as_many_failures_the_card_is_at_rest(
    offload: Offload, quantization: Quantization | None
) -> None:
    components, card = _resting(quantization), Card()
    blocks = components.blocks()
    placement = Placement(components.modules(), blocks, offload, card.device)

    def visit(name: str, module: nn.Module, *, fails: bool) -> None:
        inside = set(module.modules())
        with placement.use(name):
            for block in blocks:
                if block in inside:
                    with placement.use_block(block):
                        found = {t.device.type for part in block.modules() for _, _, t in slots(part)}
                        assert found == {"meta"}
                        if fails:
                            raise _StageError
            if fails:
                raise _StageError

    with card.ledger:
        placement.settle()
        resting = card.book.counted_bytes
        for _ in range(20):
            for name in ("condition_encoder", TRANSFORMER, "vae_decoder"):
                module = components.modules()[name]
                visit(name, module, fails=False)
                assert card.book.counted_bytes == resting
                with pytest.raises(_StageError):
                    visit(name, module, fails=True)
                assert card.book.counted_bytes == resting
        placement.release()
    assert card.book.counted_bytes == 0


@pytest.mark.parametrize("offload", [Offload.CPU_DIT, Offload.STREAM, Offload.STREAM_ENCODERS])
@pytest.mark.parametrize("name", first_of([TRANSFORMER, "text_encoder", "condition_encoder"], 1))
def test_a_card_too_small_is_left_as_it_was(offload: Offload, name: str) -> None:
    components, roomy = _resting(None), Card()
    with roomy.ledger, Placement(components.modules(), components.blocks(), offload, roomy.device).use(name):
        needed = roomy.book.allocator.allocated
    for room in range(0, needed, needed // 5):
        tight = Card(room)
        placement = Placement(components.modules(), components.blocks(), offload, tight.device)
        with tight.ledger, pytest.raises(torch.OutOfMemoryError), placement.use(name):
            raise AssertionError("there was no room")
        assert tight.book.counted_bytes == 0
        assert {t.device.type for part in components.modules()[name].modules() for _, _, t in slots(part)} == {"cpu"}
