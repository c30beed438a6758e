"""A meter of CPU memory that is independent of the ledger: the allocator's events in PyTorch's profiler."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from acestep.devices.cpu import CpuDevice
from acestep.units import ceil_div
from calibrate.probes.simulated.kernels import AttentionKernels

BLOCK = 512
KERNELS = ("aten::convolution", "aten::scaled_dot_product_attention")


class MeteredCpu(CpuDevice):
    """The CPU with a profiler around every stage; `peaks` are bytes above what was live when the stage began.

    A buffer that is born and dies inside one convolution is oneDNN's workspace, as cuDNN's would be, and one inside
    attention its kernel's; neither is a tensor of the program. The simulator keeps such workspaces apart, and so does
    this meter.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._stage = ""
        self._profiler: Any = None

    def begin_stage(self, name: str) -> None:
        self._stage = name
        self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profiler.__enter__()

    def end_stage(self) -> tuple[int, int]:
        self._profiler.__exit__(None, None, None)
        tree = self._profiler.profiler.kineto_results.experimental_event_tree()
        self.peaks[self._stage] = _peak(sorted(_allocations(tree, 0)))
        return 0, 0


def _allocations(nodes: Any, kernel: int) -> Iterator[tuple[int, int, int, int]]:
    """(time, address, bytes: negative when freed, id of the kernel around it or 0) of every event."""
    for node in nodes:
        fields = node.extra_fields
        if hasattr(fields, "alloc_size"):
            yield node.start_time_ns, fields.ptr, fields.alloc_size, kernel
        yield from _allocations(node.children, node.id if node.name in KERNELS else kernel)


def _peak(events: list[tuple[int, int, int, int]]) -> int:
    born: dict[int, int] = {}
    workspaces = set()
    for index, (_, address, n_bytes, kernel) in enumerate(events):
        if n_bytes > 0:
            born[address] = index
        elif address in born:
            start = born.pop(address)
            if kernel and events[start][3] == kernel:
                workspaces |= {start, index}
    now = peak = 0
    for index, (_, _, n_bytes, _) in enumerate(events):
        if index not in workspaces:
            rounded = ceil_div(abs(n_bytes), BLOCK) * BLOCK
            now += rounded if n_bytes > 0 else -rounded
            peak = max(peak, now)
    return peak


class CpuKernels(AttentionKernels):
    """Attention on the CPU in float32, so that metered CPU runs can be compared with simulated ones."""

    matmul_bytes = 0

    def attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return only the result."""
        return self._fused(query, key, value, None)

    def convolution(self, source: Tensor, filters: Tensor, result: Tensor, *, transposed: bool) -> int:
        """Return 0: the meter does not count workspaces inside a convolution."""
        return 0
