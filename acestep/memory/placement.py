"""Placement of the parts of the model: on the host, or on the device while a stage needs them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from acestep.devices.base import Device
from acestep.knobs import Offload
from acestep.memory.ring import Part, Ring

TRANSFORMER = "transformer"

LANGUAGE_MODEL = "lm"
"""The part whose weights share one allocation: its steps then multiply several of them by the same rows at once."""


class Placement:
    """Moves parts to the device and back as an offload mode says.

    `parts` maps names to modules. `blocks` are modules inside them that may be streamed, in the order in which they
    run: those of the transformer under `stream`, all of them under `stream+encoders`.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], blocks: Sequence[nn.Module], offload: Offload, device: Device
    ) -> None:
        self._device = device
        streamed = [] if device.shares_host_memory else [name for name in parts if _streams(name, offload)]
        self._rings: dict[str, Ring] = {}
        self._turns: dict[int, tuple[Ring, int]] = {}
        self._parts: dict[str, Part] = {}
        for name, module in parts.items():
            modules = list(module.modules())
            if name in streamed:
                known = {id(inner) for inner in modules}
                passing = [block for block in blocks if id(block) in known]
                apart = {id(inner) for block in passing for inner in block.modules()}
                modules = [inner for inner in modules if id(inner) not in apart]
                if passing:
                    self._rings[name] = Ring(name, passing, device)
                    self._turns |= {id(block): (self._rings[name], turn) for turn, block in enumerate(passing)}
            self._parts[name] = Part(name, modules, in_one_piece=name == LANGUAGE_MODEL)
        if device.shares_host_memory or offload is Offload.NONE:
            self._resident = frozenset(parts)
        else:
            self._resident = frozenset({TRANSFORMER} if offload is Offload.CPU else ())

    def settle(self) -> None:
        """Move the parts that stay resident to the device; safe to call again after a failure."""
        if self._device.shares_host_memory:
            return
        # In the order of the parts: the order of a set of names differs between processes, and so would the
        # allocations.
        for name, part in self._parts.items():
            if name in self._resident and not part.inside:
                part.enter(self._device)

    def streams(self, name: str) -> bool:
        """Return whether blocks of the part come to the device one after another, at every pass through them."""
        return name in self._rings

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights that are on the device."""
        return 0 if self._device.shares_host_memory else sum(p.n_bytes for p in self._parts.values() if p.inside)

    def release(self) -> None:
        """Take every part off the device."""
        for part in self._parts.values():
            if part.inside:
                part.leave()
        self._device.empty_cache()

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Keep the part on the device inside the block; afterwards it is where it was."""
        part = self._parts[name]
        if name in self._resident or part.inside:
            yield
            return
        part.pin(self._device)
        part.enter(self._device)
        try:
            if name in self._rings:
                with self._rings[name].open():
                    yield
            else:
                yield
        finally:
            part.leave()
            self._device.empty_cache()

    @contextmanager
    def use_block(self, block: nn.Module) -> Iterator[None]:
        """Keep a streamed module, of a part in use, on the device inside the block; does nothing for another."""
        if id(block) in self._turns:
            ring, turn = self._turns[id(block)]
            with ring.use(turn):
                yield
        else:
            yield


def _streams(name: str, offload: Offload) -> bool:
    return offload is Offload.STREAM_ENCODERS or (offload is Offload.STREAM and name == TRANSFORMER)
