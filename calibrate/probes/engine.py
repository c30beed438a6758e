"""What a prober's child runs: the shipped pipeline on this process's card, under a cap."""

import gc
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import torch

from acestep.devices.base import Device
from acestep.devices.cuda import CudaDevice
from acestep.errors import NotMeasuredError
from acestep.knobs import Knobs
from calibrate.probes.messages import Order, Setup, StagePeaks
from calibrate.probes.prompt import request_of
from calibrate.probes.worker import Done

if TYPE_CHECKING:
    from acestep.models.components import Components
    from acestep.pipeline import Pipeline

ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Where PyTorch reads how its allocator is to work, the newer name first."""


def open_components(setup: Setup, dtype: torch.dtype) -> "Components":
    """The weights of a probe on the host, in the form in which they run."""
    from acestep.models.load import load
    from acestep.pipeline import prepare

    components = load(setup.model, setup.knobs.variant, dtype=dtype)
    prepare(components, setup.knobs)
    return components


def open_pipeline(components: "Components", knobs: Knobs, device: Device) -> "Pipeline":
    """The pipeline of a probe: no guard, and the decode tile that free memory suggests."""
    from acestep.pipeline import Pipeline

    return Pipeline(components, knobs, device)


class CudaEngine:
    """The first visible card. The weights stay loaded on the host, and every run starts with an empty card."""

    def __init__(self) -> None:
        self._stages: dict[str, StagePeaks] = {}

    @property
    def stages(self) -> tuple[StagePeaks, ...]:
        """The stages of the last run, also of one that failed."""
        return tuple(self._stages.values())

    def load(self, setup: Setup) -> str:
        """Open the card and load the weights; `NotMeasuredError` where torch has no card to use."""
        if not torch.cuda.is_available():
            raise NotMeasuredError(f"torch {torch.__version__} finds no CUDA card it can use; is the driver too old?")
        torch.backends.cuda.enable_cudnn_sdp(setup.cudnn_attention)
        torch.cuda.synchronize()
        self._knobs = setup.knobs
        self._components = open_components(setup, CudaDevice().dtype)
        return next((os.environ[name] for name in ALLOCATOR_SETTINGS if name in os.environ), "")

    def run(self, order: Order, alive: Callable[[str], None]) -> Done:
        """One request under a cap that is put on before anything is allocated, and off the card again after it."""
        self._stages.clear()
        device = _CountingCuda(order.cap_bytes, self._note)
        require_held(order.cap_bytes)
        request = request_of(order.workload, self._components.tokenizer)
        if order.full:
            request = msgspec.structs.replace(request, steps=0)
        pipeline = open_pipeline(self._components, self._knobs, device)
        try:
            result = pipeline.generate(request, strict=True, progress=lambda stage, *_: alive(stage))
        finally:
            pipeline.close()
        for report in result.stages:
            if report.name in self._stages:
                counted = msgspec.structs.replace(self._stages[report.name], songs_per_pass=report.songs_per_pass)
                self._stages[report.name] = counted
        return Done(songs_per_pass=result.songs_per_pass, decode_path=result.decode_path, warnings=result.warnings)

    def outside_bytes(self) -> int:
        """What the driver calls taken and this process's allocator does not hold."""
        free, total = torch.cuda.mem_get_info()
        return max(0, int(total - free - torch.cuda.memory_reserved()))

    def rest(self) -> int:
        """Empty the caches, cuBLAS's workspaces included, and forget the peaks."""
        gc.collect()
        # Without them the first run of a child would not be like the others; there is no public way.
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_reserved())

    def _note(self, name: str, seconds: float, allocated: int, reserved: int) -> None:
        """A stage that ran several times is one: its times add up, its peaks are the highest."""
        before = self._stages.get(name)
        peaks = StagePeaks(
            name=name,
            seconds=seconds,
            songs_per_pass=1,
            allocated_bytes=allocated,
            reserved_bytes=reserved,
            outside_bytes=self.outside_bytes(),
        )
        if before is not None:
            peaks = StagePeaks(
                name=name,
                seconds=before.seconds + seconds,
                songs_per_pass=1,
                allocated_bytes=max(before.allocated_bytes, allocated),
                reserved_bytes=max(before.reserved_bytes, reserved),
                outside_bytes=max(before.outside_bytes, peaks.outside_bytes),
            )
        self._stages[name] = peaks


def require_held(cap_bytes: int) -> None:
    """Raise `NotMeasuredError` unless the allocator says that it is held to this cap."""
    total = torch.cuda.get_device_properties(0).total_memory
    held = int(torch.cuda.get_per_process_memory_fraction(0) * total)
    if held != cap_bytes:
        raise NotMeasuredError(f"the allocator holds to {held} bytes where a cap of {cap_bytes} was asked for")


class _CountingCuda(CudaDevice):
    """The card, with a note of every stage's peaks, also of the one that fails."""

    def __init__(self, cap_bytes: int, note: Callable[[str, float, int, int], None]) -> None:
        super().__init__(cap_bytes)
        self._note = note

    def begin_stage(self, name: str) -> None:
        super().begin_stage(name)
        self._stage, self._started = name, time.perf_counter()

    def end_stage(self) -> tuple[int, int]:
        allocated, reserved = super().end_stage()
        self._note(self._stage, time.perf_counter() - self._started, allocated, reserved)
        return allocated, reserved
