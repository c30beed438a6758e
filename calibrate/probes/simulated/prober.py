"""The simulated prober: runs the shipped pipeline on meta tensors and replays its allocations under any cap."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, Final

import msgspec
import torch
from msgspec import UNSET

from acestep.adapters.apart import AdaptersApart
from acestep.adapters.choice import Adapter
from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.dit.blocks import DenoiserBlock, EncoderBlock
from acestep.dit.vae_decode import TileDecoder, frame_bytes
from acestep.dit.vae_encode import TileEncoder
from acestep.engine.pipeline import UNABLE_TO_THINK, Pipeline, prepare
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.knobs import LM_MODELS, Backend, Knobs, Offload, Quantization, Variant
from acestep.limits.guard import Demand
from acestep.lm.forward import DecoderBlock
from acestep.lm.stage import Thinker
from acestep.request import DecodePath, Request
from acestep.stage import Stage
from calibrate.probes.base import MeasuredStage, ProbeResult
from calibrate.probes.prompt import probe_request
from calibrate.probes.simulated.allocator import NO_CAP
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.decoding import DecodeLadder, play_decode
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.loops import find_loops
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.memory_model import FORMATS, Swept, fit
from calibrate.probes.simulated.played import Played
from calibrate.probes.simulated.replay import ReplayResult, smallest_cap
from calibrate.probes.simulated.splice import before
from calibrate.probes.simulated.sweep import cap_with, pieces_of, trace_denoise, weights_of
from calibrate.probes.simulated.think import (
    ThinkLadder,
    ThoughtThroughError,
    counted_thinking,
    hardly_thinking,
    least_bytes,
    only_thinking,
    thinking_request,
)
from calibrate.probes.simulated.trace import ALLOWANCE, NO_PARTS, StageUsage, Trace, stage_trace
from calibrate.probes.simulated.traced_run import TracedRun, TracedRuns
from calibrate.probes.work import Work
from calibrate.verdict import Verdict
from calibrate.workload import Workload

REGIONS: Final = (DenoiserBlock, EncoderBlock, DecoderBlock, TileDecoder, TileEncoder)
"""Modules whose identical calls are traced once."""


class SimulatedProber:
    """Probes without a card. Each (knobs, workload) is traced once; every cap is a replay of that trace.

    Decoding is traced once for each tile, and the decode attempts are replays. `vae_chunk` is the tile of every run, in
    latent frames; 0 lets the pipeline choose. `capability` decides the kernels' extra memory, unless `kernels` are
    given. `sample` chooses calls that are computed although they look like earlier ones; `UnlikeCallsError` is raised
    if one takes other memory. Every run uses the `adapters`; those that are fused take no memory.
    """

    device = "simulated"

    def __init__(
        self,
        vae_chunk: int = 0,
        capability: tuple[int, int] = SIMULATED_CAPABILITY,
        sample: random.Random | None = None,
        *,
        kernels: CudaKernels | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        self._vae_chunk = vae_chunk
        self._adapters = tuple(one for one in adapters if not one.fused)
        self._kernels = kernels or CudaKernels(capability)
        self._known = Regions(sample)
        self._runs: dict[tuple[Knobs, Workload], TracedRuns] = {}
        self._decodes: dict[tuple[Any, ...], Played] = {}
        self._thoughts: dict[tuple[Knobs, Workload], Played] = {}
        self._writings: dict[tuple[Knobs, Workload, int], tuple[Work, int]] = {}

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Return whether the run fits under `cap_bytes`, and what each stage held. Stage times are not simulated.

        If only the CPU could have decoded, the verdict is `degraded` and the last stage is the attempt before.
        """
        started = time.perf_counter()
        thought: tuple[MeasuredStage, ...] = ()
        thinking: dict[str, Work] = {}
        live: dict[str, dict[str, int]] = {}
        blocks: dict[str, int] = {}
        if knobs.lm is not None:
            ladder = self._thinking(knobs, workload)
            at_once, outcome = ladder.under(cap_bytes)
            # If the resident parts do not fit, thinking never began.
            if outcome.stages:
                usage = ladder.usage(at_once)
                thinking = ladder.work(at_once) if outcome.fits else {}
                thought = (_probed(usage, at_once, outcome, thinking),)
                live = {usage.name: usage.live_at_peak}
                blocks = {usage.name: outcome.stages[usage.name][0]}
            if not outcome.fits:
                return ProbeResult(
                    verdict=Verdict.OOM,
                    cap_bytes=cap_bytes,
                    stages=thought,
                    songs_per_pass=workload.batch,
                    decode_path=DecodePath.GPU,
                    seconds=time.perf_counter() - started,
                    live_at_peak=live,
                    blocks_at_peak=blocks,
                )
        run = self._traced(knobs, workload).under(cap_bytes)
        for attempt in run.ladder.attempts(cap_bytes):  # noqa: B007 the last one is what counts
            pass
        refusal = attempt.outcome.refusal
        if refusal is None:
            verdict, path = Verdict.FITS, attempt.path
        elif refusal.stage == Stage.DECODE:
            verdict, path = Verdict.DEGRADED, DecodePath.CPU
        else:
            verdict, path = Verdict.OOM, DecodePath.GPU
        reached = attempt.outcome.stages.keys() - {Stage.THINK}
        work = run.ladder.work(attempt.path, attempt.tile) if refusal is None else {}
        usages = [usage for usage in run.usage_of(attempt) if usage.name in reached]
        stages = tuple(
            _probed(usage, run.songs_per_pass if usage.name == Stage.DENOISE else 1, attempt.outcome, work)
            for usage in usages
        )
        return ProbeResult(
            verdict=verdict,
            cap_bytes=cap_bytes,
            stages=thought + stages,
            songs_per_pass=run.songs_per_pass,
            decode_path=path,
            seconds=time.perf_counter() - started,
            warnings=run.warnings,
            live_at_peak=live | {usage.name: usage.live_at_peak for usage in usages},
            blocks_at_peak=blocks | {usage.name: attempt.outcome.stages[usage.name][0] for usage in usages},
            work=thinking | work if refusal is None else {},
        )

    def smallest_caps(self, knobs: Knobs, workload: Workload) -> dict[str, int]:
        """Return for each stage, and under ``"total"`` for the whole run, the smallest cap from which on all fit.

        Decoding must not use the CPU; the pipeline may choose any tiles under each cap.
        """
        runs = self._traced(knobs, workload)
        until, ladder = runs.least.before.trace, runs.least.ladder
        caps = {name: smallest_cap(stage_trace(until, name)) for name in until.stage_names}
        caps |= {Stage.DECODE: ladder.alone().smallest_cap(), "total": runs.smallest_cap()}
        if knobs.lm is None:
            return caps
        alone, so_far = self._thinking(knobs, workload).smallest_caps()
        return caps | {Stage.THINK: alone, "total": max(caps["total"], so_far)}

    def writing(self, knobs: Knobs, workload: Workload, at_once: int) -> tuple[Work, int]:
        """Return the work of writing the plan and all codes, `at_once` songs in a pass, and the number of steps."""
        # A model for vLLM is counted as PyTorch runs it.
        key = msgspec.structs.replace(knobs, backend=Backend.PT), workload, at_once
        if key not in self._writings:
            components = self._weights(knobs)
            thinker, counted = counted_thinking(key[0], at_once, self._kernels.work)
            with (
                tracing(components, key[0], thinker, self._kernels, self._known) as (_, _, pipeline),
                suppress(ThoughtThroughError),
            ):
                pipeline.generate(thinking_request(probe_request(workload, components.tokenizer)), strict=True)
            self._writings[key] = counted.work, counted.steps
        return self._writings[key]

    def memory_model(self, variant: Variant) -> dict[str, float]:
        """Fit the model to a sweep of its own."""
        weights = {
            (quantization, offload): weights_of(full_size(variant, quantization), offload)
            for quantization in FORMATS
            for offload in Offload
        }

        def denoise(quantization: Quantization | None, demand: Demand) -> Swept:
            components = full_size(variant, quantization)
            trace = trace_denoise(components, quantization, demand, self._kernels, REGIONS, self._known)
            # Two modes that place the transformer in the same way have the same caps.
            placed = {offload: weights[quantization, offload] for offload in Offload}
            caps = {held: cap_with(trace, held) for held in set(placed.values())}
            return Swept(
                demand=demand,
                caps={offload: caps[held] for offload, held in placed.items()},
                resting={offload: sum(weights[quantization, offload].resting) for offload in Offload},
            )

        return fit(variant, denoise, self.smallest_caps)

    def _traced(self, knobs: Knobs, workload: Workload) -> TracedRuns:
        key = (knobs, workload)
        if knobs.lm is not None and (knobs.offload is not Offload.NONE or knobs.backend is not Backend.PT):
            # No language model stays on the card, so the stages after thinking are the same for all of them.
            key = (_with_least_lm(knobs), workload)
        if key not in self._runs:
            self._runs[key] = TracedRuns(partial(self._trace, *key))
        return self._runs[key]

    def _trace(self, knobs: Knobs, workload: Workload, free_bytes: int) -> TracedRun:
        components = self._weights(knobs)
        request = probe_request(workload, components.tokenizer)

        def decode(tile: int, resident: bool) -> Played:
            asked = (knobs.variant, request.batch, request.samples, tile, resident)
            if asked not in self._decodes:
                played = play_decode(components, request, tile, self._kernels, self._known, resident=resident)
                self._decodes[asked] = played
            return self._decodes[asked]

        thinker: Thinker = UNABLE_TO_THINK if knobs.lm is None else hardly_thinking(knobs)
        with tracing(components, knobs, thinker, self._kernels, self._known, free_bytes) as (trace, device, pipeline):
            result = pipeline.generate(request if knobs.lm is None else thinking_request(request), strict=True)
        until = before(trace, Stage.DECODE)
        until_decoding = Played(trace=until, loops=find_loops(until), work=device.work)
        ladder = DecodeLadder(
            until_decoding,
            decode,
            offload=knobs.offload,
            frames=request.latent_frames,
            bytes_per_frame=frame_bytes(components.vae.decoder),
            vae_chunk=self._vae_chunk,
        )
        return TracedRun(until_decoding, ladder, result)

    def _weights(self, knobs: Knobs) -> Components:
        return full_size(knobs.variant, knobs.quantization, self._kernels.dtype, self._adapters)

    def _thinking(self, knobs: Knobs, workload: Workload) -> ThinkLadder:
        components = self._weights(knobs)

        def request_for(songs: int) -> Request:
            alike = msgspec.structs.replace(workload, batch=songs)
            return thinking_request(probe_request(alike, components.tokenizer))

        def played(songs: int) -> Played:
            key = (knobs, msgspec.structs.replace(workload, batch=songs))
            if key not in self._thoughts:
                thinker = only_thinking(knobs, songs)
                with (
                    tracing(components, knobs, thinker, self._kernels, self._known) as (trace, device, pipeline),
                    suppress(ThoughtThroughError),
                ):
                    pipeline.generate(request_for(songs), strict=True)
                self._thoughts[key] = Played(trace=trace, loops=find_loops(trace), work=device.work)
            return self._thoughts[key]

        return ThinkLadder(workload.batch, played, lambda songs: least_bytes(knobs, request_for(songs)))


@contextmanager
def tracing(
    components: Components,
    knobs: Knobs,
    thinker: Thinker,
    kernels: CudaKernels,
    known: Regions,
    free_bytes: int = NO_CAP,
) -> Iterator[tuple[Trace, SimulatedDevice, Pipeline]]:
    """A pipeline on meta tensors without a cap, told `free_bytes` whenever it asks, with its trace and its device."""
    trace = Trace()
    tape = Tape(trace)
    ledger = Ledger(tape, kernels)
    book = TraceBook(trace, free_bytes)
    device = SimulatedDevice(ledger, book, dtype=kernels.dtype, grouped_attention=kernels.has_flash)
    layer = components.text_encoder.layers[0]
    of_qwen = type(layer), type(layer.mlp), type(layer.input_layernorm)
    with kernels, ledger, Memo(ledger, tape, known).patched((*REGIONS, *of_qwen, *pieces_of(components))):
        pipeline = Pipeline(components, knobs, device, thinker=thinker)
        try:
            yield trace, device, pipeline
        finally:
            pipeline.close()


def _probed(usage: StageUsage, songs_per_pass: int, outcome: ReplayResult, work: Mapping[str, Work]) -> MeasuredStage:
    _, reserved = outcome.stages[usage.name]
    return MeasuredStage(
        name=usage.name,
        seconds=0.0,
        songs_per_pass=songs_per_pass,
        peak_allocated_bytes=usage.peak_bytes,
        peak_reserved_bytes=reserved,
        resident_bytes=sum(n for owner, n in usage.live_at_peak.items() if owner not in NO_PARTS),
        allowance_bytes=usage.highest.get(ALLOWANCE, 0),
        work=work[usage.name].totals if usage.name in work else UNSET,
    )


def _with_least_lm(knobs: Knobs) -> Knobs:
    return msgspec.structs.replace(knobs, lm=LM_MODELS[0], lm_quantization=None, backend=Backend.PT)


@cache
def full_size(
    variant: Variant,
    quantization: Quantization | None,
    dtype: torch.dtype = torch.bfloat16,
    adapters: tuple[Adapter, ...] = (),
) -> Components:
    """Prepared weights of full size on the host, with adapters beside them, one set for the lifetime of the process."""
    components = build("dummy", variant, dtype=dtype, materialise="meta")
    prepare(components, Knobs(variant=variant, quantization=quantization))
    rest_on_host(components.modules().values())
    beside = AdaptersApart(components.transformer, dtype)
    beside.use(adapters, lambda: None)
    return msgspec.structs.replace(components, adapter_memory=beside.memory)
