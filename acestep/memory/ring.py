"""The ring: blocks of a part are streamed through two device buffers; one is in use while the next one is filled."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from acestep.devices.base import Device, DeviceEvent
from acestep.limits.workspace import up_to_grain
from acestep.memory.tensors import Arena, map_storage, pin, plain, slots


class Part:
    """The weights of some modules. Host tensors are kept, so moving back copies nothing; tied tensors count once.

    `in_one_piece`: on the device they share one allocation, in the order of the modules, so that weights which are
    multiplied by the same rows follow each other.
    """

    def __init__(self, name: str, modules: Sequence[nn.Module], *, in_one_piece: bool = False) -> None:
        self.name = name
        self._in_one_piece = in_one_piece
        self.inside = False
        self._pinned = False
        found = [slot for module in modules for slot in slots(module)]
        unique = {id(host): host for _, _, host in found}
        positions = {key: position for position, key in enumerate(unique)}
        self.hosts = list(unique.values())
        # Page-locked copies keep it, and a ring asks for it at every use of a block.
        self.layout = tuple((type(t), *((p.shape, p.stride(), p.dtype) for p in plain(t))) for t in self.hosts)
        self._places = [(table, key, positions[id(host)]) for table, key, host in found]

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights, laid out in one buffer."""
        return sum(map(Arena.bytes_for, self.hosts))

    def pin(self, device: Device) -> None:
        """Move the host tensors to page-locked memory, as far as there is some; only the first call does anything."""
        if not self._pinned:
            self._pinned = True
            self.hosts = pin(self.hosts, device)
            self.leave()

    def enter(self, device: Device) -> None:
        """Copy every weight to the device; on failure nothing has changed."""
        if self._in_one_piece:
            self.put(self._side_by_side(device))
            return
        self.put([map_storage(host, lambda tensor: device.upload(tensor, self.name)) for host in self.hosts])

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Set the tensors that the modules compute with, one for each of `hosts`."""
        for table, key, position in self._places:
            table[key] = tensors[position]
        self.inside = True

    def leave(self) -> None:
        """Restore the host tensors; the device copies are freed with their last reference."""
        self.put(self.hosts)
        self.inside = False

    def _side_by_side(self, device: Device) -> list[Tensor]:
        # Whole segments: a gap behind the weights could be used by a tensor that outlives them, and would then keep
        # all of their memory.
        arena = Arena(device.reserve(up_to_grain(self.n_bytes), self.name))
        tensors = [map_storage(host, arena.like) for host in self.hosts]
        device.wait(device.fetch(_copies(tensors, self.hosts), device.mark()))
        return tensors


def _copies(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The plain tensors of each target, with those of its source."""
    inside = ([inner for tensor in tensors for inner in plain(tensor)] for tensors in (targets, sources))
    return list(zip(*inside, strict=True))


SLOTS = 2

TensorLayout = tuple[Any, ...]


class Slot:
    """A device buffer for one block at a time. `passed` is the event after which no computation uses its contents."""

    def __init__(self, buffer: Tensor, passed: DeviceEvent) -> None:
        self.holds: int | None = None
        self.arrived: DeviceEvent = None
        self.passed = passed
        self._buffer = buffer
        self._views: dict[TensorLayout, list[Tensor]] = {}

    def views(self, block: Part) -> list[Tensor]:
        """Device tensors for the weights of `block`; blocks with equal layouts get the same ones."""
        if block.layout not in self._views:
            arena = Arena(self._buffer)
            self._views[block.layout] = [map_storage(host, arena.like) for host in block.hosts]
        return self._views[block.layout]


class Ring:
    """The blocks of a part, streamed in the given order, repeatedly.

    The slots are allocated once for a stage, on the computing stream: memory pools belong to streams, so computation
    could never reuse blocks that are allocated on the copying stream.
    """

    def __init__(self, name: str, modules: Sequence[nn.Module], device: Device) -> None:
        self._name = name
        self._device = device
        self._modules = modules
        self._blocks = [Part(name, list(module.modules())) for module in modules]
        self._slots: list[Slot] = []
        self._current: Slot | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Allow the use of blocks inside the context. Modules called by their library move in by themselves."""
        for block in self._blocks:
            block.pin(self._device)
        n_bytes = max(block.n_bytes for block in self._blocks)
        hooks = []
        try:
            for _ in range(min(SLOTS, len(self._blocks))):
                self._slots.append(Slot(self._device.reserve(n_bytes, self._name), self._device.mark()))
            for index, module in enumerate(self._modules):
                hooks.append(module.register_forward_pre_hook(lambda *_, index=index: self._enter(index)))
                hooks.append(module.register_forward_hook(lambda *_: self._leave()))
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._leave()
            self._drop()

    @contextmanager
    def use(self, index: int) -> Iterator[None]:
        """Keep the block on the device inside the context, while the next one is being copied."""
        try:
            # A failed copy of the next block leaves this one too, so that the ring can be used again.
            self._enter(index)
            yield
        finally:
            self._leave()

    def _enter(self, index: int) -> None:
        slot = self._fetch(index)
        self._device.wait(slot.arrived)
        self._current = slot
        self._blocks[index].put(slot.views(self._blocks[index]))
        self._fetch((index + 1) % len(self._blocks))

    def _leave(self) -> None:
        if self._current is not None and self._current.holds is not None:
            self._blocks[self._current.holds].leave()
            self._current.passed = self._device.mark()
        self._current = None

    def _drop(self) -> None:
        for slot in self._slots:
            if slot.holds is not None:
                # Computation reuses this memory next, so an unfinished copy must not write to it then.
                self._device.wait(slot.arrived)
        self._slots.clear()

    def _fetch(self, index: int) -> Slot:
        """Return the slot that holds a block, or will hold it after the copy."""
        for slot in self._slots:
            if slot.holds == index:
                return slot
        slot = next(slot for slot in self._slots if slot is not self._current)
        block = self._blocks[index]
        # While it is copied, and after a copy that failed, the slot holds no whole block.
        slot.holds = None
        slot.arrived = self._device.fetch(_copies(slot.views(block), block.hosts), slot.passed)
        slot.holds = index
        return slot
