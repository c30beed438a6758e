"""A card that records work as CUDA does: addresses are fixed, and what the host computed at recording."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from acestep.devices.base import Recording
from acestep.devices.cpu import CpuDevice


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of some work, with the tensors that they read and wrote; repeated, they write the same memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.repeats = 0
        self.released = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._done.append((func, args, kwargs or {}, list(_tensors(result))))
        return result

    def repeat(self) -> None:
        if self.released:
            raise RuntimeError("a recording that was released cannot be repeated")
        self.repeats += 1
        for func, args, kwargs, written in self._done:
            for place, value in zip(written, _tensors(func(*args, **kwargs)), strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)

    def release(self) -> None:
        self.released = True


def _tensors(result: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


class RecordingCard(CpuDevice):
    """A card made of ordinary memory; `able` says whether it has room to record, `refuses` whether recording fails."""

    shares_host_memory = False

    def __init__(self, *, able: bool = True, refuses: bool = False, has_triton: bool = False) -> None:
        self.has_triton = has_triton
        self.able = able
        self.refuses = refuses
        self.asked = 0
        self.tapes: list[Tape] = []

    def upload(self, host: Tensor, owner: str) -> Tensor:
        return host.clone()

    def can_record(self) -> bool:
        self.asked += 1
        return self.able

    def record(self, work: Callable[[], None]) -> Recording | None:
        # Once outside, as for a real recording.
        work()
        if self.refuses:
            return None
        tape = Tape()
        with tape:
            work()
        self.tapes.append(tape)
        return tape
