"""One whole denoise stage in simulation, without the stages around it."""

from collections.abc import Sequence

import torch
from torch import nn

from acestep.checkpoints.components import Components
from acestep.dit.place import StageContext
from acestep.engine.denoise import denoise
from acestep.engine.encode import Conditions
from acestep.knobs import Knobs
from acestep.memory.placement import Placement
from acestep.request import Request
from acestep.units import silent
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.replay import smallest_cap
from calibrate.probes.simulated.sweep import first_product
from calibrate.probes.simulated.trace import Trace, stage_trace


def denoise_cap(
    components: Components,
    knobs: Knobs,
    request: Request,
    tokens: int,
    kernels: CudaKernels,
    regions: Sequence[type[nn.Module]],
) -> tuple[int, int]:
    """(smallest cap of denoising, bytes that rest on the device before) for a condition of `tokens` tokens.

    Identical calls of the modules in `regions` are traced once.
    """
    trace = Trace()
    tape = Tape(trace)
    ledger = Ledger(tape, kernels)
    device = SimulatedDevice(ledger, TraceBook(trace), dtype=torch.bfloat16, grouped_attention=kernels.has_flash)
    placement = Placement(components.modules(), components.blocks(), knobs.offload, device)
    place = StageContext(components=components, knobs=knobs, device=device, placement=placement)
    width = components.condition_encoder.null_condition_emb.shape[-1]
    channels = components.vae.decoder.conv1.in_channels
    with kernels, ledger, Memo(ledger, tape, Regions()).patched(regions), torch.no_grad():
        placement.settle()
        resting = sum(size for size in trace.sizes if size > 0)
        first_product(device)
        conditions = Conditions(
            condition=torch.empty(1, tokens, width, dtype=device.dtype, device="meta"),
            unguided=torch.empty(1, 1, width, dtype=device.dtype, device="meta"),
            context=torch.empty(1, request.latent_frames, 2 * channels, dtype=device.dtype, device="meta"),
        )
        device.empty_cache()
        device.begin_stage("denoise")
        latents = denoise(request, conditions, place, silent)
        device.end_stage()
        del latents, conditions
        placement.release()
    return smallest_cap(stage_trace(trace, "denoise")), resting
