"""The ledger: every storage that a run creates on the simulated card, as a stream of allocations and frees.

Device tensors are `meta` tensors, host tensors ordinary ones. A dispatch mode sees every operation and reports each new
storage to a sink; the free of a storage is reported when its last tensor is deleted.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from unittest.mock import patch

import torch
from torch import Tensor, UntypedStorage
from torch._C import _DisableTorchDispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from calibrate.probes.simulated.kernels import Workspaces
from calibrate.probes.simulated.meta_results import MetaResults
from calibrate.probes.simulated.operations import about
from calibrate.probes.simulated.region_events import RegionEvents
from calibrate.probes.simulated.trace import ALLOWANCE, WORKSPACE
from calibrate.probes.simulated.work_counter import NOTHING, Counts, tensors_in, work_of

aten = torch.ops.aten

_RESULTS = MetaResults()


class Sink(Protocol):
    """The receiver of the ledger's reports: a trace, or an allocator that may refuse."""

    def alloc(self, n_bytes: int, owner: str) -> int:
        """A storage of `n_bytes` was created; return a number for it. May raise `torch.OutOfMemoryError`."""
        ...

    def free(self, block: int) -> None:
        """The storage with the number `block` was freed."""
        ...

    def play(self, recording: RegionEvents) -> dict[int, int]:
        """A call did again what was recorded; return the numbers of the blocks that it left alive.

        May raise `torch.OutOfMemoryError`, and then it did nothing.
        """
        ...


class Held(NamedTuple):
    """A reported storage: the sink's number of its block, its bytes, and the reference whose end frees it."""

    block: int
    n_bytes: int
    storage: weakref.ref[UntypedStorage]


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its modes untyped
    """Reports the storages of tensors on `device_type` to `sink`, and hidden workspaces as `workspaces` says.

    `products` counts the operations with matrix products; the first one allocates their workspace.
    """

    def __init__(self, sink: Sink, workspaces: Workspaces, device_type: str = "meta") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = ""
        self._sink = sink
        self.workspaces = workspaces
        self._device_type = device_type
        self._live: dict[int, Held] = {}
        self.products = 0
        self._failed = ""
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        """Begin to see the operations of this thread."""
        self._entered.enter_context(self.storages_seen())
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it. Raises `RuntimeError` if an operation on the card failed and nothing was raised."""
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._entered.close()
        if kind is None:
            self.require_no_failure()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: no model is compiled on meta tensors, and the wrapper that skips it costs as much as a view."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = about(func)
        if operation.is_view:
            return func(*args, **kwargs)
        if func is aten._to_copy.default and self._leaves(args[0], kwargs):
            source = args[0]
            self._copied_to_host(source, waits=not kwargs.get("non_blocking"))
            dtype = kwargs.get("dtype") or source.dtype
            return torch.zeros(0, dtype=dtype).new_empty(source.shape)
        if func is aten.copy_.default and self._is_device(args[1]) and not self._is_device(args[0]):
            self._copied_to_host(args[0], waits=not (args[2:] and args[2]) and not kwargs.get("non_blocking"))
            return args[0]
        key = _RESULTS.key(operation, args, kwargs)
        known = _RESULTS.find(key)
        if operation.is_product and self._is_device(args[0]):
            if not self.has_workspace and self.workspaces.matmul_bytes:
                self._sink.alloc(self.workspaces.matmul_bytes, WORKSPACE)
            self.products += 1
        if known is None:
            out, done = self._computed(func, args, kwargs)
            _RESULTS.remember(key, args, kwargs, out, done)
        else:
            out, done = known.result(args), known.work
        self.workspaces.work.add(done)
        self.adopt(out)
        if operation.is_convolution and self._is_device(args[0]):
            n_bytes = self.workspaces.convolution(args[0], args[1], out, transposed=args[6])
            if n_bytes:
                self._sink.free(self._sink.alloc(n_bytes, ALLOWANCE))
        return out

    def _copied_to_host(self, copied: Tensor, *, waits: bool) -> None:
        self.workspaces.work.transfer(copied.numel() * copied.element_size())
        if waits:
            self.workspaces.work.wait()

    def _computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Counts]:
        """What an operation gives, and its work."""
        self._refuse_mixing(func, args, kwargs)
        try:
            out = func(*args, **kwargs)
        except Exception as error:
            # On a card the same may work, and code that goes on here would go another way there.
            if any(self._is_device(leaf) for leaf in tensors_in((*args, *kwargs.values()))):
                self._failed = self._failed or f"{func} failed: {error}".splitlines()[0]
            raise
        return out, work_of(func, args, out) if self._gives_device(out) else NOTHING

    @property
    def has_workspace(self) -> bool:
        """Whether a matrix product has run."""
        return self.products > 0

    def require_no_failure(self) -> None:
        """Raise `RuntimeError` if an operation on the card failed, although the code went on."""
        if self._failed:
            raise RuntimeError(f"{self._failed}; the code went on, and on a real card it would go another way")

    @contextmanager
    def storages_seen(self) -> Iterator[None]:
        """Report inside the block also what `UntypedStorage.resize_` changes, which is no operation."""
        usual = torch.UntypedStorage.resize_

        def resized(storage: UntypedStorage, n_bytes: int) -> UntypedStorage:
            usual(storage, n_bytes)
            if (held := self._live.get(storage._cdata)) is not None:
                self._resize(storage, held)
            return storage

        with patch.object(torch.UntypedStorage, "resize_", resized):
            yield

    def recount(self) -> None:
        """Report every storage whose size was changed without an operation (`UntypedStorage.resize_`)."""
        for held in list(self._live.values()):
            storage = held.storage()
            if storage is not None:
                self._resize(storage, held)

    def adopt(self, out: Any) -> None:
        """Report every storage in `out` that is not yet known, or that has another size than before."""
        if type(out) is Tensor:
            self._register(out)
        elif out is not None:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._register(leaf)

    def block_of(self, tensor: Tensor) -> int:
        """Return the sink's number for a tensor's storage."""
        return self._live[tensor.untyped_storage()._cdata].block

    def bind(self, tensor: Tensor, block: int) -> None:
        """Tie a storage that the sink knows as `block` to the lifetime of `tensor`."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._live[key] = Held(block, storage.nbytes(), weakref.ref(storage, lambda _: self._forget(key)))

    def new(self, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype, owner: str) -> Tensor:
        """Return a new tensor of an owner as `empty_strided` would, without the way through an operation: it is long.

        May raise `torch.OutOfMemoryError`.
        """
        with _DisableTorchDispatch():
            tensor = torch.empty_strided(shape, stride, dtype=dtype, device=self._device_type)
        if n_bytes := tensor.untyped_storage().nbytes():
            self.bind(tensor, self._sink.alloc(n_bytes, owner))
        return tensor

    def knows(self, tensor: Tensor) -> bool:
        """Whether the tensor's storage has been reported."""
        return tensor.untyped_storage()._cdata in self._live

    def _register(self, tensor: Tensor) -> None:
        if tensor.device.type != self._device_type:
            return
        if type(tensor) is not Tensor and hasattr(tensor, "__tensor_flatten__"):
            # A wrapper's own storage is empty: only its inner tensors hold bytes.
            for name in tensor.__tensor_flatten__()[0]:
                self._register(getattr(tensor, name))
            return
        storage = tensor.untyped_storage()
        held = self._live.get(storage._cdata)
        if held is None:
            if n_bytes := storage.nbytes():
                self.bind(tensor, self._sink.alloc(n_bytes, self.owner))
        else:
            self._resize(storage, held)

    def _resize(self, storage: UntypedStorage, held: Held) -> None:
        """Report a storage that has another size: as on a card, new bytes are taken before the old ones are freed."""
        n_bytes = storage.nbytes()
        if n_bytes == held.n_bytes:
            return
        block = self._sink.alloc(n_bytes, self.owner)
        self._live[storage._cdata] = held._replace(block=block, n_bytes=n_bytes)
        self._sink.free(held.block)

    def _forget(self, key: int) -> None:
        self._sink.free(self._live.pop(key).block)

    def _is_device(self, tensor: Tensor) -> bool:
        return tensor.device.type == self._device_type

    def _gives_device(self, out: Any) -> bool:
        first = out if isinstance(out, Tensor) else next(iter(out), None) if isinstance(out, list | tuple) else None
        return isinstance(first, Tensor) and self._is_device(first)

    def _leaves(self, source: Tensor, kwargs: dict[str, Any]) -> bool:
        target = kwargs.get("device")
        return target is not None and self._is_device(source) and torch.device(target).type != self._device_type

    def _refuse_mixing(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Meta kernels accept a host tensor silently where a card would raise, so this raises."""
        if func is aten.copy_.default:
            return
        found = {leaf.device.type for leaf in tensors_in((*args, *kwargs.values())) if leaf.dim() > 0}
        if len(found) > 1:
            raise RuntimeError(f"{func} mixes tensors on {' and '.join(sorted(found))}; move them with Device.upload")
