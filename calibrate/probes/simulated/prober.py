"""The simulated prober: the shipped pipeline on meta tensors, its allocations replayed under any cap."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch

from acestep.knobs import Knobs, Quantization, Variant
from acestep.memory.guard import Demand
from acestep.memory.tensors import map_storage, slots
from acestep.memory.vae_decode import TileDecoder, frame_bytes
from acestep.memory.vae_encode import TileEncoder
from acestep.models.blocks import DenoiserBlock, EncoderBlock
from acestep.models.build import build
from acestep.models.components import Components
from acestep.pipeline import Pipeline, prepare
from acestep.request import DecodePath, Request, Result
from calibrate.memory_model import Swept, fit
from calibrate.probes.base import ProbedStage, ProbeResult
from calibrate.probes.prompt import request_of
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.decoding import STAGE, Attempt, DecodeLadder, Played, play_decode
from calibrate.probes.simulated.denoising import denoise_cap
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import ALLOWANCE, WORKSPACE, Ledger
from calibrate.probes.simulated.memo import Memo, Tape
from calibrate.probes.simulated.replay import smallest_cap
from calibrate.probes.simulated.splice import before
from calibrate.probes.simulated.trace import ACTIVATIONS, StageUsage, Trace, stage_trace, stage_usage
from calibrate.verdict import Verdict
from calibrate.workload import PROBE_STEPS, Workload

CAPABILITY: Final = (8, 6)
"""Compute capability of the simulated card: Ampere as sold to people, with flash attention."""

REGIONS: Final = (DenoiserBlock, EncoderBlock, TileDecoder, TileEncoder)
"""Modules whose identical calls are traced once."""

NO_PARTS: Final = frozenset({ALLOWANCE, WORKSPACE, ACTIVATIONS, "prompt", "noise", "latents", "audio"})
"""Owners of allocations that are no weights."""


class TracedRun:
    """One request: what it allocates up to decoding, the ladder after that, and what it said about itself."""

    def __init__(self, before: Trace, ladder: DecodeLadder, result: Result) -> None:
        self.before = before
        self.ladder = ladder
        self.songs_per_pass = result.songs_per_pass
        self.warnings = result.warnings
        self._usage: dict[tuple[DecodePath, int], tuple[StageUsage, ...]] = {}

    def usage_of(self, attempt: Attempt) -> tuple[StageUsage, ...]:
        """What the stages held in an attempt, whatever the cap."""
        key = (attempt.path, attempt.tile)
        if key not in self._usage:
            self._usage[key] = stage_usage(attempt.played.trace, uncounted=(ALLOWANCE,))
        return self._usage[key]


class SimulatedProber:
    """Probes without a card. Each (knobs, workload) is traced once; every cap is a replay of that trace.

    Decoding is traced once for each tile, and the decode ladder is gone down by replays. `vae_chunk` is the tile that
    every run is given, in latent frames; 0 leaves it to the pipeline.
    """

    device = "simulated"

    def __init__(self, vae_chunk: int = 0) -> None:
        self._vae_chunk = vae_chunk
        self._runs: dict[tuple[Knobs, Workload], TracedRun] = {}
        self._decodes: dict[tuple[Any, ...], Played] = {}

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Whether the run fits under `cap_bytes`, and what each stage held. Stage times are not simulated.

        Where only the processor could have decoded, the verdict is `degraded` and the last stage the attempt before.
        """
        started = time.perf_counter()
        run = self._traced(knobs, workload)
        for attempt in run.ladder.attempts(cap_bytes):  # noqa: B007 the last one is what counts
            pass
        refusal = attempt.outcome.refusal
        if refusal is None:
            verdict, path = Verdict.FITS, attempt.path
        elif refusal.stage == STAGE:
            verdict, path = Verdict.DEGRADED, DecodePath.CPU
        else:
            verdict, path = Verdict.OOM, DecodePath.GPU
        reserved = {stage.name: stage.peak_reserved for stage in attempt.outcome.stages}
        stages = tuple(
            ProbedStage(
                name=usage.name,
                seconds=0.0,
                songs_per_pass=run.songs_per_pass if usage.name == "denoise" else 1,
                peak_allocated_bytes=usage.peak_bytes,
                peak_reserved_bytes=reserved[usage.name],
                resident_bytes=sum(n for owner, n in usage.live_at_peak.items() if owner not in NO_PARTS),
                allowance_bytes=usage.highest.get(ALLOWANCE, 0),
                live_at_peak=usage.live_at_peak,
            )
            for usage in run.usage_of(attempt)
            if usage.name in reserved
        )
        return ProbeResult(
            verdict=verdict,
            cap_bytes=cap_bytes,
            stages=stages,
            songs_per_pass=run.songs_per_pass,
            decode_path=path,
            seconds=time.perf_counter() - started,
            warnings=run.warnings,
        )

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """Per stage, and under ``"total"`` for the whole run, the smallest cap from which on every cap fits.

        For decoding that is without the processor, in whatever tiles the pipeline chooses under each cap.
        """
        run = self._traced(knobs, workload)
        caps = {name: smallest_cap(stage_trace(run.before, name)) for name in run.before.stage_names}
        return caps | {STAGE: run.ladder.alone().smallest_cap(), "total": run.ladder.smallest_cap()}

    def memory_model(self, variant: Variant) -> dict[str, float]:
        """Fitted over a sweep of its own."""

        def denoise(knobs: Knobs, songs: int, seconds: float, tokens: int) -> Swept:
            request = Request(caption="", batch=songs, duration_s=seconds, steps=PROBE_STEPS)
            weights, kernels = full_size(variant, knobs.quantization), CudaKernels(CAPABILITY)
            cap_bytes, resting_bytes = denoise_cap(weights, knobs, request, tokens, kernels, REGIONS)
            demand = Demand(songs=songs, frames=request.latent_frames, lyric_tokens=tokens - 1, text_tokens=0)
            return Swept(demand=demand, cap_bytes=cap_bytes, resting_bytes=resting_bytes)

        return fit(variant, denoise, self.smallest_caps)

    def _traced(self, knobs: Knobs, workload: Workload) -> TracedRun:
        key = (knobs, workload)
        if key not in self._runs:
            components = full_size(knobs.variant, knobs.quantization)
            request = request_of(workload, components.tokenizer)

            def decode(tile: int, resident: bool) -> Played:
                asked = (knobs.variant, request.batch, request.samples, tile, resident)
                if asked not in self._decodes:
                    kernels = CudaKernels(CAPABILITY)
                    self._decodes[asked] = play_decode(components, request, tile, kernels, resident=resident)
                return self._decodes[asked]

            self._runs[key] = trace_run(components, knobs, request, decode, self._vae_chunk)
        return self._runs[key]


def trace_run(
    components: Components, knobs: Knobs, request: Request, decode: Callable[[int, bool], Played], vae_chunk: int = 0
) -> TracedRun:
    """Run the pipeline once on meta tensors without a cap. `components` are prepared and rest on the host."""
    trace = Trace()
    tape = Tape(trace)
    kernels = CudaKernels(CAPABILITY)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(ledger, TraceBook(trace), dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
    with kernels, ledger, Memo(ledger, tape).patched(REGIONS):
        pipeline = Pipeline(components, knobs, device)
        try:
            result = pipeline.generate(request, strict=True)
        finally:
            pipeline.close()
    until_decoding = before(trace, STAGE)
    ladder = DecodeLadder(
        until_decoding,
        decode,
        offload=knobs.offload,
        frames=request.latent_frames,
        bytes_per_frame=frame_bytes(components.vae.decoder),
        vae_chunk=vae_chunk,
    )
    return TracedRun(until_decoding, ladder, result)


def rest_on_host(components: Components) -> None:
    """Give prepared meta weights host tensors that nothing ever writes, so that they take no memory."""
    for module in components.modules().values():
        for part in module.modules():
            for table, key, tensor in slots(part):
                table[key] = map_storage(tensor, _unwritten)


@cache
def full_size(variant: Variant, quantization: Quantization | None) -> Components:
    """Prepared weights of full size on the host, one set for the life of the process."""
    components = build("dummy", variant, dtype=torch.bfloat16, materialise="meta")
    prepare(components, Knobs(variant=variant, quantization=quantization))
    rest_on_host(components)
    return components


def _unwritten(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
