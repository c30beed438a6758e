"""The simulated prober: the shipped pipeline on meta tensors, its allocations replayed under any cap."""

import time
from functools import cache
from typing import Final

import msgspec
import torch

from acestep.knobs import Knobs, Quantization, Variant
from acestep.memory.tensors import map_storage, slots
from acestep.memory.vae_decode import TileDecoder
from acestep.models.blocks import DenoiserBlock, EncoderBlock
from acestep.models.build import build
from acestep.models.components import Components
from acestep.pipeline import Pipeline, prepare
from acestep.request import DecodePath
from calibrate.probes.base import ProbedStage, ProbeResult
from calibrate.probes.prompt import request_of
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import ALLOWANCE, WORKSPACE, Ledger
from calibrate.probes.simulated.loops import Loop, find_loops
from calibrate.probes.simulated.memo import Memo, Tape
from calibrate.probes.simulated.replay import replay, smallest_cap
from calibrate.probes.simulated.trace import StageUsage, Trace, stage_trace, stage_usage
from calibrate.verdict import Verdict
from calibrate.workload import Workload

CAPABILITY: Final = (8, 6)
"""Compute capability of the simulated card: Ampere as sold to people, with flash attention."""

REGIONS: Final = (DenoiserBlock, EncoderBlock, TileDecoder)
"""Modules whose identical calls are traced once."""


class TracedRun(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One uncapped run: what it allocated, and what it said about itself."""

    trace: Trace
    loops: tuple[Loop, ...]
    usage: tuple[StageUsage, ...]
    parts: frozenset[str]
    songs_per_pass: int
    decode_path: DecodePath
    warnings: tuple[str, ...]


class TraceBook:
    """Writes the stages and flushes of a run into a trace; with no cap there is always room."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def begin_stage(self, name: str) -> None:
        """Written down."""
        self._trace.begin_stage(name)

    def end_stage(self) -> tuple[int, int]:
        """Written down; peaks are read from the trace afterwards."""
        self._trace.end_stage()
        return 0, 0

    def empty_cache(self) -> None:
        """Written down."""
        self._trace.empty_cache()

    def free_bytes(self) -> int:
        """As good as endless."""
        return NO_CAP


class SimulatedProber:
    """Probes without a card. Each (knobs, workload) is traced once; every cap is a replay of that trace."""

    device = "simulated"

    def __init__(self) -> None:
        self._runs: dict[tuple[Knobs, Workload], TracedRun] = {}

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Whether the run fits under `cap_bytes`, and what each stage held. Stage times are not simulated."""
        started = time.perf_counter()
        run = self._traced(knobs, workload)
        outcome = replay(run.trace, cap_bytes, run.loops)
        reserved = {stage.name: stage.peak_reserved for stage in outcome.stages}
        stages = tuple(
            ProbedStage(
                name=usage.name,
                seconds=0.0,
                songs_per_pass=run.songs_per_pass if usage.name == "denoise" else 1,
                peak_allocated_bytes=usage.peak_bytes,
                peak_reserved_bytes=reserved[usage.name],
                resident_bytes=sum(n for owner, n in usage.live_at_peak.items() if owner in run.parts),
                allowance_bytes=usage.highest.get(ALLOWANCE, 0),
                live_at_peak=usage.live_at_peak,
            )
            for usage in run.usage
            if usage.name in reserved
        )
        return ProbeResult(
            verdict=Verdict.FITS if outcome.fits else Verdict.OOM,
            cap_bytes=cap_bytes,
            stages=stages,
            songs_per_pass=run.songs_per_pass,
            decode_path=run.decode_path,
            seconds=time.perf_counter() - started,
            warnings=run.warnings,
        )

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """Per stage, and under ``"total"`` for the whole run, the smallest cap from which on every cap fits."""
        trace = self._traced(knobs, workload).trace
        caps = {name: smallest_cap(stage_trace(trace, name)) for name in trace.stage_names}
        return caps | {"total": smallest_cap(trace)}

    def _traced(self, knobs: Knobs, workload: Workload) -> TracedRun:
        key = (knobs, workload)
        if key not in self._runs:
            self._runs[key] = trace_run(_full_size(knobs.variant, knobs.quantization), knobs, workload)
        return self._runs[key]


def trace_run(components: Components, knobs: Knobs, workload: Workload) -> TracedRun:
    """Run the pipeline once on meta tensors without a cap. `components` are prepared and rest on the host."""
    trace = Trace()
    tape = Tape(trace)
    kernels = CudaKernels(CAPABILITY)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(ledger, TraceBook(trace), dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
    with kernels, ledger, Memo(ledger, tape).patched(REGIONS):
        pipeline = Pipeline(components, knobs, device)
        try:
            result = pipeline.generate(request_of(workload, components.tokenizer), strict=True)
        finally:
            pipeline.close()
    return TracedRun(
        trace=trace,
        loops=tuple(find_loops(trace)),
        usage=stage_usage(trace, uncounted=(ALLOWANCE,)),
        parts=frozenset(trace.owner_names) - {ALLOWANCE, WORKSPACE, "activations", "prompt", "noise"},
        songs_per_pass=result.songs_per_pass,
        decode_path=result.decode_path,
        warnings=result.warnings,
    )


def rest_on_host(components: Components) -> None:
    """Give prepared meta weights host tensors that nothing ever writes, so that they take no memory."""
    for module in components.modules().values():
        for part in module.modules():
            for table, key, tensor in slots(part):
                table[key] = map_storage(tensor, _unwritten)


@cache
def _full_size(variant: Variant, quantization: Quantization | None) -> Components:
    components = build("dummy", variant, dtype=torch.bfloat16, materialise="meta")
    prepare(components, Knobs(variant=variant, quantization=quantization))
    rest_on_host(components)
    return components


def _unwritten(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
