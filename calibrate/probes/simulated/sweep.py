"""Denoise stages of many requests: each is traced once, and replayed for every offload mode.

A mode changes only where and when weights are allocated; the activations between are the same, event for event. A layer
leaves nothing alive, so two layers of each kind show the need of all of them. A test compares both with full runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import torch
from torch import nn

from acestep.checkpoints.components import Components
from acestep.dit.place import StageContext
from acestep.engine.denoise import denoise
from acestep.engine.encode import Conditions
from acestep.knobs import Knobs, Offload, Quantization
from acestep.limits.guard import Demand
from acestep.memory.placement import TRANSFORMER, Placement
from acestep.request import CODE_FRAMES, LATENT_HOP, SAMPLE_RATE, Request, Task
from acestep.stage import Stage
from acestep.units import ceil_div, silent
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.replay import smallest_cap
from calibrate.probes.simulated.trace import END, FREE, Trace
from calibrate.workload import PROBE_STEPS

LAYERS: Final = 2
"""Layers that are traced: one with a window, one without."""


class WeightAllocations(msgspec.Struct, frozen=True, kw_only=True):
    """Allocations of weights in bytes: resident ones, and those moved in for denoising."""

    resting: tuple[int, ...]
    entering: tuple[int, ...]


def weights_of(components: Components, offload: Offload) -> WeightAllocations:
    """Return an offload mode's allocations for weights, in order. `components` are on the host."""
    trace = Trace()
    ledger = Ledger(trace, CudaKernels((0, 0)))
    device = SimulatedDevice(ledger, TraceBook(trace), dtype=torch.bfloat16, grouped_attention=True)
    placement = Placement(components.modules(), components.blocks(), offload, device)
    with ledger, torch.no_grad():
        placement.settle()
        settled = len(trace)
        with placement.use(TRANSFORMER):
            inside = len(trace)
        placement.release()
    sizes = list(trace.sizes)
    return WeightAllocations(
        resting=tuple(size for size in sizes[:settled] if size > 0),
        entering=tuple(size for size in sizes[settled:inside] if size > 0),
    )


def request_for(demand: Demand) -> Request:
    """Return a request whose denoising needs what `demand` says."""
    # Just into the last frame: from there no length is rounded up to another frame.
    seconds = (demand.frames - 0.9) * LATENT_HOP / SAMPLE_RATE
    plain = Request(caption="", batch=demand.songs, duration_s=seconds, steps=PROBE_STEPS)
    if not demand.weak_cover:
        return plain
    codes = (0,) * ceil_div(demand.frames, CODE_FRAMES)
    return msgspec.structs.replace(plain, task=Task.COVER, audio_codes=codes, cover_strength=0.5)


def first_product(device: SimulatedDevice) -> None:
    """Run one matmul so that cuBLAS allocates its persistent workspace. In a run that happens while encoding."""
    row = torch.empty(1, 1, dtype=device.dtype, device=device.torch_device)
    torch.mm(row, row)


def trace_denoise(
    components: Components,
    quantization: Quantization | None,
    demand: Demand,
    kernels: CudaKernels,
    regions: Sequence[type[nn.Module]],
    known: Regions,
) -> Trace:
    """Trace one denoise stage of a few layers, whose weights, in that format, are moved in for it."""
    request, tokens = request_for(demand), demand.tokens
    trace = Trace()
    tape = Tape(trace)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(ledger, TraceBook(trace), dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
    width = components.condition_encoder.null_condition_emb.shape[-1]
    channels = components.vae.decoder.conv1.in_channels
    with _few_layers(components.transformer):
        placement = Placement({TRANSFORMER: components.transformer}, (), Offload.CPU_DIT, device)
        knobs = Knobs(variant=components.variant, offload=Offload.CPU_DIT, quantization=quantization)
        place = StageContext(components=components, knobs=knobs, device=device, placement=placement)
        with kernels, ledger, Memo(ledger, tape, known).patched((*regions, *pieces_of(components))), torch.no_grad():

            def empty(*shape: int) -> torch.Tensor:
                return torch.empty(*shape, dtype=device.dtype, device="meta")

            first_product(device)
            conditions = Conditions(
                condition=empty(1, tokens, width),
                unguided=empty(1, 1, width),
                context=empty(demand.contexts, demand.frames, 2 * channels),
                uncovered=empty(1, tokens, width) if request.cover_strength < 1 else None,
            )
            device.empty_cache()
            device.begin_stage(Stage.DENOISE)
            latents = denoise(request, conditions.of(0, demand.songs), place, silent)
            device.end_stage()
            del latents, conditions
            placement.release()
    return trace


def cap_with(trace: Trace, weights: WeightAllocations) -> int:
    """Return the smallest cap of a traced stage, in bytes, with `weights` instead of the traced ones."""
    owner = trace.owner_names.index(TRANSFORMER)
    whole = Trace()
    whole.stage_names, whole.owner_names = [Stage.DENOISE], ["weights", "activations"]
    whole.n_slots = trace.n_slots + len(weights.resting) + len(weights.entering)
    _allocate(whole, weights.resting, trace.n_slots)
    traced: set[int] = set()
    for size, slot, whose in zip(trace.sizes, trace.slots, trace.owners, strict=True):
        if size >= 0 and whose == owner:
            if not traced:
                _allocate(whole, weights.entering, trace.n_slots + len(weights.resting))
            traced.add(slot)
            continue
        if size == END:
            break
        if size == FREE and slot in traced:
            # The stage ends when its weights are freed: no request comes after that.
            continue
        _write(whole, size, slot, 1)
    _write(whole, END, 0, 1)
    return smallest_cap(whole)


def pieces_of(components: Components) -> set[type[nn.Module]]:
    """Return the modules that a layer calls once for each piece of its rows: most of these calls are identical."""
    layer = components.transformer.layers[0]
    return {type(layer.mlp_norm), nn.Linear}


def _allocate(trace: Trace, sizes: Sequence[int], first_slot: int) -> None:
    for number, size in enumerate(sizes):
        _write(trace, size, first_slot + number, 0)


def _write(trace: Trace, size: int, slot: int, owner: int) -> None:
    trace.sizes.append(size)
    trace.slots.append(slot)
    trace.owners.append(owner)


@contextmanager
def _few_layers(transformer: nn.Module) -> Iterator[None]:
    layers = transformer.layers
    transformer.layers = nn.ModuleList(list(layers)[:LAYERS])  # type: ignore[arg-type] # torch leaves them untyped
    try:
        yield
    finally:
        transformer.layers = layers
