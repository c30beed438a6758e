"""Work on an NVIDIA card that is recorded once as a CUDA graph, and then repeated in one launch."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import torch

from acestep.devices.base import Recording
from acestep.units import MIB

_LOG = logging.getLogger(__name__)

RECORDING_BYTES: Final = 128 * MIB
"""What must be free for a recording, besides a workspace of the matrix library.

A step of 16 rows of a language model takes 24 MiB on the virtual card, 8 of them that workspace: segments of the stream
that records, and of the graph's own pool. The driver keeps the graph itself outside of PyTorch's allocator; how much
that is, no card has shown yet.
"""


class GraphRecorder:
    """Records work of one card. After a failure, which it says once in the log, `works` is false."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None
        self.works = True

    def record(self, work: Callable[[], None]) -> Recording | None:
        """Return the recorded work, None if it cannot be recorded."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            self._capture(graph, pool, work)
            return GraphRecording(graph)
        except torch.OutOfMemoryError:
            _LOG.info("no room to record a step on the card")
        except RuntimeError as error:
            self.works = False
            _LOG.warning("steps are launched one operation at a time, because recording one failed: %s", error)
        # Outside the except blocks, because the traceback keeps the tensors of the work alive.
        with suppress(RuntimeError):
            # PyTorch 2.11 goes on recording into the pool after a failure, and then never empties its cache before it
            # runs out of memory; later releases have ended it already, and say so.
            torch._C._cuda_endAllocateToPool(self._device.index or 0, pool)  # noqa: SLF001
        _free(graph)
        return None

    def _capture(self, graph: torch.cuda.CUDAGraph, pool: Any, work: Callable[[], None]) -> None:
        # CUDA does not record what is sent to the default stream.
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):
                # Outside of the recording libraries may load their kernels and take their workspaces.
                work()
                # Other threads may use the card meanwhile.
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
        finally:
            usual.wait_stream(self._stream)


class GraphRecording:
    """A CUDA graph that is kept until it is released."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def repeat(self) -> None:
        self._graph.replay()

    def release(self) -> None:
        _free(self._graph)


def _free(graph: torch.cuda.CUDAGraph) -> None:
    """Free a graph, and the workspace that the matrix library took on the stream that recorded it.

    All workspaces go; those of other streams are taken again by the next product there.
    """
    graph.reset()
    torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 there is no public call for it
