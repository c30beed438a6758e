"""Parts come and go whole: tied weights stay tied, a failed move leaves nothing, and everything ends where it rests."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acestep.checkpoints.quantize import quantize
from acestep.devices.cpu import CpuDevice
from acestep.knobs import Offload, Quantization
from acestep.memory.placement import TRANSFORMER, Placement
from acestep.memory.ring import Part
from acestep.memory.tensors import map_storage


class CopyingDevice(CpuDevice):
    """A CPU that behaves like a card: uploads are copies, and after `room` bytes there is no more room."""

    shares_host_memory = False

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.owners: list[str] = []

    def upload(self, host: Tensor, owner: str) -> Tensor:
        if host.nbytes > self.room:
            raise torch.OutOfMemoryError(f"no room for {host.nbytes} bytes")
        self.room -= host.nbytes
        self.owners.append(owner)
        return host.clone()

    def download(self, host: np.ndarray, source: Tensor) -> None:
        raise AssertionError("nothing is downloaded here")


class Tied(nn.Module):
    """Two layers that share one weight, a buffer, and a block inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("table", torch.arange(4.0))
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.requires_grad_(False)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def test_a_part_enters_as_copies_and_leaves_as_the_same_host_tensors() -> None:
    module = Tied()
    rest, values = _tensors(module), {name: t.clone() for name, t in module.state_dict().items()}
    device = CopyingDevice()
    part = Part("part", list(module.modules()))
    part.enter(device)
    assert not {id(t) for t in rest} & {id(t) for t in _tensors(module)}
    assert module.head.weight is module.embedding.weight
    assert len(device.owners) == len(rest), "a tied weight is moved once"
    assert all(torch.equal(t, values[name]) for name, t in module.state_dict().items())
    part.leave()
    assert [id(t) for t in _tensors(module)] == [id(t) for t in rest]


@pytest.mark.parametrize("room", [0, 512, 600, 900])
def test_a_move_that_fails_half_way_changes_nothing(room: int) -> None:
    module = Tied()
    rest = _tensors(module)
    with pytest.raises(torch.OutOfMemoryError):
        Part("part", list(module.modules())).enter(CopyingDevice(room))
    assert [id(t) for t in _tensors(module)] == [id(t) for t in rest]


def test_quantised_weights_move_with_their_inner_tensors() -> None:
    module = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)).requires_grad_(False)
    x = torch.randn(3, 32)
    quantize(module, Quantization.INT8)
    before = module(x)
    device = CopyingDevice()
    part = Part("part", list(module.modules()))
    part.enter(device)
    assert torch.equal(module(x), before)
    inner = sum(t.nbytes for linear in module for t in _inner(linear.weight))
    assert inner < 0.6 * 2 * 32 * 32 * 4, "the bytes are those of INT8"
    part.leave()


def _inner(weight: Tensor) -> Iterator[Tensor]:
    found: list[Tensor] = []
    map_storage(weight, lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    yield from found


@pytest.mark.parametrize("offload", list(Offload))
def test_after_use_only_what_the_mode_keeps_is_inside(offload: Offload) -> None:
    parts = {"text_encoder": Tied(), TRANSFORMER: Tied(), "vae_decoder": Tied()}
    hosts = {name: [id(t) for t in _tensors(module)] for name, module in parts.items()}
    placement = Placement(parts, list(parts[TRANSFORMER].layers), offload, CopyingDevice())

    def inside() -> set[str]:
        return {name for name, module in parts.items() if [id(t) for t in _tensors(module)] != hosts[name]}

    placement.settle()
    resting = inside()
    expected = {Offload.NONE: set(parts), Offload.CPU: {TRANSFORMER}}.get(offload, set())
    assert resting == expected
    for name in parts:
        with placement.use(name):
            assert inside() == resting | {name}
            if name == TRANSFORMER:
                for layer in parts[TRANSFORMER].layers:
                    with placement.use_block(layer):
                        assert not {id(t) for t in _tensors(layer)} & set(hosts[TRANSFORMER])
        assert inside() == resting
    with pytest.raises(RuntimeError, match="stage failed"), placement.use("text_encoder"):
        raise RuntimeError("stage failed")
    assert inside() == resting
    placement.release()
    assert inside() == set()


def test_streamed_blocks_stay_out_until_their_turn() -> None:
    module = Tied()
    hosts = {id(t) for t in _tensors(module.layers)}
    placement = Placement({TRANSFORMER: module}, list(module.layers), Offload.STREAM, CopyingDevice())
    with placement.use(TRANSFORMER):
        assert {id(t) for t in _tensors(module.layers)} == hosts
        with placement.use_block(module.layers[1]):
            assert {id(t) for t in _tensors(module.layers[0])} <= hosts
            assert not {id(t) for t in _tensors(module.layers[1])} & hosts
        assert {id(t) for t in _tensors(module.layers)} == hosts


def test_on_a_cpu_nothing_is_copied() -> None:
    module = Tied()
    rest = [id(t) for t in _tensors(module)]
    placement = Placement({TRANSFORMER: module}, list(module.layers), Offload.STREAM, CpuDevice())
    placement.settle()
    with placement.use(TRANSFORMER), placement.use_block(module.layers[0]):
        assert [id(t) for t in _tensors(module)] == rest
