"""Where the parts of the model are: resting on the host, or on the device while a stage needs them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from acestep.devices.base import Device
from acestep.knobs import Offload
from acestep.memory.tensors import map_storage, slots

TRANSFORMER = "transformer"


class Part:
    """The weights of some modules, moved as one. Host tensors are kept, so leaving copies nothing."""

    def __init__(self, name: str, modules: Sequence[nn.Module]) -> None:
        self.name = name
        self.inside = False
        self._slots = [slot for module in modules for slot in slots(module)]

    def enter(self, device: Device) -> None:
        """Copy every weight to the device, tied ones once; on failure nothing has changed."""
        moved: dict[int, Tensor] = {}
        try:
            for _, _, host in self._slots:
                if id(host) not in moved:
                    moved[id(host)] = map_storage(host, lambda tensor: device.upload(tensor, self.name))
        except BaseException:
            moved.clear()
            raise
        for table, key, host in self._slots:
            table[key] = moved[id(host)]
        self.inside = True

    def leave(self) -> None:
        """Put the host tensors back; the device copies are freed with their last reference."""
        for table, key, host in self._slots:
            table[key] = host
        self.inside = False


class Placement:
    """Moves parts in and out as an offload mode says.

    `parts` maps names to modules; the transformer is given as its own part plus one per block (`blocks`), which
    only `stream` tells apart.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], blocks: Sequence[nn.Module], offload: Offload, device: Device
    ) -> None:
        self._device = device
        self._streams = offload in (Offload.STREAM, Offload.STREAM_ENCODERS)
        inside_blocks = {id(module) for block in blocks for module in block.modules()}
        self._parts = {}
        for name, module in parts.items():
            modules = list(module.modules())
            if name == TRANSFORMER and self._streams:
                modules = [inner for inner in modules if id(inner) not in inside_blocks]
            self._parts[name] = Part(name, modules)
        self._blocks = [Part(TRANSFORMER, list(block.modules())) for block in blocks] if self._streams else []
        if device.shares_host_memory or offload is Offload.NONE:
            self._resident = frozenset(parts)
        else:
            self._resident = frozenset({TRANSFORMER} if offload is Offload.CPU else ())

    def settle(self) -> None:
        """Bring in what stays; safe to call again after a failure."""
        if self._device.shares_host_memory:
            return
        for name in self._resident:
            if not self._parts[name].inside:
                self._parts[name].enter(self._device)

    def release(self) -> None:
        """Take every part off the device."""
        for part in [*self._parts.values(), *self._blocks]:
            if part.inside:
                part.leave()
        self._device.empty_cache()

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        """The part is on the device inside the block, and back where it rests after it."""
        part = self._parts[name]
        with self._visit(part, stays=name in self._resident):
            yield

    @contextmanager
    def use_block(self, index: int) -> Iterator[None]:
        """One transformer block is on the device inside the block; a no-op unless blocks are streamed."""
        if self._blocks and not self._device.shares_host_memory:
            part = self._blocks[index]
            part.enter(self._device)
            try:
                yield
            finally:
                part.leave()
        else:
            yield

    @contextmanager
    def _visit(self, part: Part, *, stays: bool) -> Iterator[None]:
        if stays or part.inside:
            yield
            return
        part.enter(self._device)
        try:
            yield
        finally:
            part.leave()
            self._device.empty_cache()
