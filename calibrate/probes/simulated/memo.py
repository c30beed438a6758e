"""Traces identical layers and tiles only once: the allocations of a region are recorded and repeated.

A region is one call of a module of `REGIONS`. Two calls are identical when the weights have the same shapes, the
arguments the same layouts, and the ledger's owner is the same. Only closed regions are kept: every storage allocated in
them is freed in them or is the result, no older storage is freed, and no argument is kept. (A first call that fills a
cache is not closed; the second one is.) A recording of a call with only tensors and plain values as arguments is valid
in other traces too.

Code can depend on what is not compared, such as the number of a layer. So a run that judges code computes a random
sample of the calls that it could repeat, and compares them with their recordings.
"""

import random
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, NoneType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _DisableTorchDispatch
from torch.utils._pytree import tree_leaves

from acestep.memory.tensors import slots
from calibrate.probes.simulated.ledger import Ledger, Sink
from calibrate.probes.simulated.region_events import Event, RegionEvents
from calibrate.probes.simulated.work_counter import Counts

RESULT = -1

_PLAIN: Final = (Tensor, int, float, str, NoneType)
"""What calls of other runs can get too."""

_ALONE: Final = frozenset({Tensor, nn.Parameter, int, float, bool, str, NoneType, FunctionType})
"""Types of which nothing is a container."""

CHECKED_EVERY = 32
"""One of this many repeated calls is computed, where calls are checked."""


class UnlikeCallsError(RuntimeError):
    """Two calls that look identical take different memory."""


class Region(NamedTuple):
    """The effect of one call: its events, and its result as a new tensor (layout and block) or one of its arguments.

    `multiplies`: it contains a matrix product; the first product of a run allocates a workspace that stays.
    """

    events: RegionEvents
    work: Counts
    multiplies: bool
    argument: int
    block: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Tape:
    """A sink that passes all events on and can record them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written: list[Event] = []
        self._depth = 0

    def alloc(self, n_bytes: int, owner: str) -> int:
        """Pass an allocation on."""
        block = self._sink.alloc(n_bytes, owner)
        if self._depth:
            self._written.append(Event(block, n_bytes, owner))
        return block

    def free(self, block: int) -> None:
        """Pass a free on."""
        self._sink.free(block)
        if self._depth:
            self._written.append(Event(block, -1, ""))

    @contextmanager
    def record(self, into: list[Event]) -> Iterator[None]:
        """Append all events inside the block to `into`; recordings can be nested."""
        start = len(self._written)
        self._depth += 1
        try:
            yield
        finally:
            into.extend(self._written[start:])
            self._depth -= 1
            if not self._depth:
                self._written.clear()

    def play(self, events: RegionEvents) -> dict[int, int]:
        """Repeat recorded events; return the sink's numbers of the blocks that are still alive.

        Undone if the sink refuses.
        """
        # Most allocations of a trace are repeated ones, and outside a recording the sink takes them in one go.
        return events.onto(self) if self._depth else self._sink.play(events)


class Regions:
    """The recorded regions for all traces of one simulated card. `sample` chooses the calls that are checked."""

    def __init__(self, sample: random.Random | None = None) -> None:
        self.by_call: dict[object, Region] = {}
        self.signatures: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
        self.numbers: dict[tuple[Any, ...], int] = {}
        self._sample = sample

    def is_checked(self) -> bool:
        """Return whether the next call that could be repeated is computed and compared instead."""
        return self._sample is not None and self._sample.randrange(CHECKED_EVERY) == 0


class Memo:
    """The region recordings of one trace, which reads and extends `known`."""

    def __init__(self, ledger: Ledger, tape: Tape, known: Regions) -> None:
        self._ledger = ledger
        self._tape = tape
        self._known = known
        self._here: dict[object, Region] = {}
        self._kept: dict[int, Any] = {}

    @contextmanager
    def patched(self, kinds: Sequence[type[nn.Module]]) -> Iterator[None]:
        """Memoise the calls of these module classes inside the block."""
        originals = {kind: kind.forward for kind in kinds}
        for kind, original in originals.items():
            kind.forward = self._memoised(original)
        try:
            yield
        finally:
            for kind, original in originals.items():
                kind.forward = original

    def forget(self) -> None:
        """Let go of the objects that calls got as arguments; their recordings are of no use to other runs."""
        self._here.clear()
        self._kept.clear()

    def _memoised(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            leaves = [*_leaves(args), *_leaves(kwargs.values())] if kwargs else _leaves(args)
            lasting = all(isinstance(leaf, _PLAIN) for leaf in leaves)
            regions = self._known.by_call if lasting else self._here
            key = (original, self._ledger.owner, self._signature(module), tuple(map(self._layout, leaves)))
            region = regions.get(key)
            # The first product of a run also allocates the workspace.
            known = region if region is not None and (self._ledger.has_workspace or not region.multiplies) else None
            if known is not None and not self._known.is_checked():
                return self._replay(known, leaves)
            events: list[Event] = []
            products, counter = self._ledger.products, self._ledger.workspaces.work
            counts = counter.counts
            holders = list(map(_holders, leaves))
            with self._tape.record(events):
                result = original(module, *args, **kwargs)
            multiplies = self._ledger.products > products
            region = self._closed(events, result, leaves, work=counter.since(counts), multiplies=multiplies)
            if not any(leaf is result for leaf in leaves) and holders != list(map(_holders, leaves)):
                # The module keeps an argument, so every call has to be computed.
                region = None
            if known is not None and region != known:
                raise UnlikeCallsError(_difference(type(module).__name__, known, region))
            if region is not None:
                regions[key] = region
            return result

        return forward

    def _replay(self, region: Region, leaves: list[Any]) -> Any:
        alive = self._tape.play(region.events)
        self._ledger.products += region.multiplies
        self._ledger.workspaces.work.add(region.work)
        if region.argument != RESULT:
            return leaves[region.argument]
        with _DisableTorchDispatch():
            result = torch.empty_strided(region.shape, region.stride, dtype=region.dtype, device="meta")
        self._ledger.bind(result, alive[region.block])
        return result

    def _closed(
        self, events: list[Event], result: Any, leaves: list[Any], *, work: Counts, multiplies: bool
    ) -> Region | None:
        if not isinstance(result, Tensor) or not self._ledger.knows(result):
            return None
        alive: dict[int, int] = {}
        numbered = []
        for position, (block, n_bytes, owner) in enumerate(events):
            if n_bytes >= 0:
                alive[block] = position
                numbered.append(Event(position, n_bytes, owner))
            elif block in alive:
                numbered.append(Event(alive.pop(block), n_bytes, owner))
            else:
                return None
        for index, leaf in enumerate(leaves):
            if leaf is result:
                return (
                    None if alive else Region(RegionEvents(numbered), work, multiplies, index, 0, (), (), result.dtype)
                )
        block = self._ledger.block_of(result)
        if alive.keys() != {block} or result.storage_offset():
            return None
        shape, stride = tuple(result.shape), result.stride()
        return Region(RegionEvents(numbered), work, multiplies, RESULT, alive[block], shape, stride, result.dtype)

    def _signature(self, module: nn.Module) -> int:
        """A number for the inputs that decide a module's allocations: layouts of weights, and the attention window."""
        number = self._known.signatures.get(module)
        if number is None:
            signature = tuple(
                (
                    type(part),
                    tuple((name, _stored(tensor.data)) for _, name, tensor in slots(part)),
                    getattr(part, "sliding_window", None),
                )
                for part in module.modules()
            )
            # A number, because Python computes the hash of a tuple each time that it is looked up.
            number = self._known.numbers.setdefault(signature, len(self._known.numbers))
            self._known.signatures[module] = number
        return number

    def _layout(self, leaf: Any) -> Any:
        """Shape and stride of a tensor, the value of a number, the identity of any other object."""
        if isinstance(leaf, Tensor):
            return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device.type
        if leaf is None or isinstance(leaf, int | float | str | bool):
            return leaf
        if isinstance(leaf, FunctionType):
            # An object that a closure refers to must be freed when the run drops it.
            return weakref.ref(leaf)
        return self._keep(leaf)

    def _keep(self, thing: Any) -> int:
        """Return the id of an object; while it is kept, no other object can have that id."""
        self._kept[id(thing)] = thing
        return id(thing)


def _leaves(values: Iterable[Any]) -> list[Any]:
    """What is in arguments and in containers among them; most arguments are none."""
    leaves: list[Any] = []
    for value in values:
        if type(value) in _ALONE:
            leaves.append(value)
        else:
            leaves += tree_leaves(value)
    return leaves


def _stored(weight: Tensor) -> tuple[Any, ...]:
    """What decides how a weight is multiplied: its layout, and for a quantized one how it and its argument are."""
    context: Any = None
    if hasattr(weight, "__tensor_flatten__"):
        _, context = weight.__tensor_flatten__()
    return type(weight), tuple(weight.shape), weight.dtype, repr(context)


def _holders(leaf: Any) -> tuple[int, int]:
    """Return how many references there are to a tensor and to its storage."""
    if not isinstance(leaf, Tensor):
        return 0, 0
    return sys.getrefcount(leaf), torch._C._storage_Use_Count(leaf.untyped_storage()._cdata)


def _difference(module: str, known: Region, found: Region | None) -> str:
    def allocated(region: Region) -> str:
        events = region.events.events
        return f"{sum(max(event.n_bytes, 0) for event in events):,} bytes in {len(events)} events"

    if found is not None and found.events == known.events:
        return (
            f"a call of {module} does other work than an earlier call with the same weights and arguments. Work that"
            " depends on anything else, such as the number of the layer, cannot be simulated"
        )

    takes = "keeps or frees other memory" if found is None else f"allocates {allocated(found)}"
    return (
        f"a call of {module} {takes}; an earlier call with the same weights and arguments allocated"
        f" {allocated(known)}. Memory that depends on anything else, such as the number of the layer, cannot be"
        " simulated"
    )
