"""Identical layers and tiles are traced once: a region's allocations are recorded and played again.

A region is one call of a module of `REGIONS`. Two calls are identical when the weights have the same shapes, the
arguments the same layouts, and the ledger's owner is the same. Only closed regions are kept: every storage born in
them dies in them or is the result, and nothing older dies. (A first call that fills a cache is not closed; the second
one is.) What is known of a call whose arguments are tensors and plain values holds in other traces too.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from acestep.memory.tensors import slots
from calibrate.probes.simulated.ledger import Ledger, Sink

RESULT = -1


class Event(NamedTuple):
    """One allocation (`n_bytes` >= 0) or free (`n_bytes` < 0) inside a region; `block` is numbered within it."""

    block: int
    n_bytes: int
    owner: str


class Region(NamedTuple):
    """What one call did: its events, and its result as a new tensor (layout and block) or one of its arguments.

    `multiplies`: it holds a matrix product, the first of which in a run takes a workspace that stays.
    """

    events: tuple[Event, ...]
    multiplies: bool
    argument: int
    block: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Tape:
    """A sink that passes everything on and can write down what passes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written: list[Event] = []
        self._depth = 0

    def alloc(self, n_bytes: int, owner: str) -> int:
        """Pass on an allocation."""
        block = self._sink.alloc(n_bytes, owner)
        if self._depth:
            self._written.append(Event(block, n_bytes, owner))
        return block

    def free(self, block: int) -> None:
        """Pass on a free."""
        self._sink.free(block)
        if self._depth:
            self._written.append(Event(block, -1, ""))

    @contextmanager
    def record(self, into: list[Event]) -> Iterator[None]:
        """Everything that passes inside the block is appended to `into`; recordings nest."""
        start = len(self._written)
        self._depth += 1
        try:
            yield
        finally:
            into.extend(self._written[start:])
            self._depth -= 1
            if not self._depth:
                self._written.clear()

    def play(self, events: Sequence[Event]) -> dict[int, int]:
        """Repeat recorded events; the sink's names of the blocks that are still alive. Undone if the sink refuses."""
        alive: dict[int, int] = {}
        try:
            for event in events:
                if event.n_bytes >= 0:
                    alive[event.block] = self.alloc(event.n_bytes, event.owner)
                else:
                    self.free(alive.pop(event.block))
        except BaseException:
            for block in alive.values():
                self.free(block)
            raise
        return alive


class Regions:
    """What is known of calls in every trace of one simulated card."""

    def __init__(self) -> None:
        self.by_call: dict[object, Region] = {}
        self.signatures: weakref.WeakKeyDictionary[nn.Module, tuple[Any, ...]] = weakref.WeakKeyDictionary()


class Memo:
    """Region recordings of one trace, which adds to what `known` has and takes from it."""

    def __init__(self, ledger: Ledger, tape: Tape, known: Regions) -> None:
        self._ledger = ledger
        self._tape = tape
        self._known = known
        self._here: dict[object, Region] = {}
        self._kept: dict[int, Any] = {}

    @contextmanager
    def patched(self, kinds: Sequence[type[nn.Module]]) -> Iterator[None]:
        """Calls of these module classes are memoised inside the block."""
        originals = {kind: kind.forward for kind in kinds}
        for kind, original in originals.items():
            kind.forward = self._memoised(original)
        try:
            yield
        finally:
            for kind, original in originals.items():
                kind.forward = original

    def _memoised(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            leaves = tree_leaves((args, kwargs))
            lasting = all(leaf is None or isinstance(leaf, Tensor | int | float | str) for leaf in leaves)
            regions = self._known.by_call if lasting else self._here
            key = (original, self._ledger.owner, self._signature(module), tuple(map(self._layout, leaves)))
            region = regions.get(key)
            if region is not None and (self._ledger.has_workspace or not region.multiplies):
                return self._replay(region, leaves)
            events: list[Event] = []
            products = self._ledger.products
            with self._tape.record(events):
                result = original(module, *args, **kwargs)
            region = self._closed(events, result, leaves, multiplies=self._ledger.products > products)
            if region is not None:
                regions[key] = region
            return result

        return forward

    def _replay(self, region: Region, leaves: list[Any]) -> Any:
        alive = self._tape.play(region.events)
        self._ledger.products += region.multiplies
        if region.argument != RESULT:
            return leaves[region.argument]
        with _disable_current_modes():
            result = torch.empty_strided(region.shape, region.stride, dtype=region.dtype, device="meta")
        self._ledger.bind(result, alive[region.block])
        return result

    def _closed(self, events: list[Event], result: Any, leaves: list[Any], *, multiplies: bool) -> Region | None:
        if not isinstance(result, Tensor) or not self._ledger.knows(result):
            return None
        alive = set()
        for event in events:
            if event.n_bytes >= 0:
                alive.add(event.block)
            elif event.block in alive:
                alive.remove(event.block)
            else:
                return None
        for index, leaf in enumerate(leaves):
            if leaf is result:
                return None if alive else Region(tuple(events), multiplies, index, 0, (), (), result.dtype)
        if alive != {self._ledger.block_of(result)} or result.storage_offset():
            return None
        block = self._ledger.block_of(result)
        shape, stride = tuple(result.shape), result.stride()
        return Region(tuple(events), multiplies, RESULT, block, shape, stride, result.dtype)

    def _signature(self, module: nn.Module) -> tuple[Any, ...]:
        """What decides a module's allocations: the layouts of its weights, and the window it attends in."""
        signatures = self._known.signatures
        if module not in signatures:
            signatures[module] = tuple(
                (
                    type(part),
                    tuple(
                        (name, type(tensor.data), tuple(tensor.shape), tensor.dtype) for _, name, tensor in slots(part)
                    ),
                    getattr(part, "sliding_window", None),
                )
                for part in module.modules()
            )
        return signatures[module]

    def _layout(self, leaf: Any) -> Any:
        """Shape and stride of a tensor, the value of a number, the identity of anything else."""
        if isinstance(leaf, Tensor):
            return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device.type
        if leaf is None or isinstance(leaf, int | float | str | bool):
            return leaf
        if isinstance(leaf, FunctionType):
            # What a closure holds must be free to go when the run lets go of it.
            return weakref.ref(leaf)
        return self._keep(leaf)

    def _keep(self, thing: Any) -> int:
        """The id of a thing, which nothing else can have as long as the thing is kept."""
        self._kept[id(thing)] = thing
        return id(thing)
