"""Noise to latents: Euler steps along the velocities that the DiT predicts."""

import torch
from torch import Tensor

from acestep.memory.placement import TRANSFORMER
from acestep.models.denoiser import Denoiser
from acestep.models.sampler import Guidance, guidance_for, noise, schedule, steps_for
from acestep.progress import Progress
from acestep.request import Request
from acestep.stages.encode import Conditions
from acestep.stages.place import Place


def denoise(request: Request, conditions: Conditions, place: Place, progress: Progress) -> Tensor:
    """Clean latents [batch, frames, 64] in float32."""
    variant, device = place.components.variant, place.device
    channels = conditions.context.shape[-1] // 2
    latents = torch.empty(request.batch, request.latent_frames, channels, device=device.torch_device)
    for song in range(request.batch):
        latents[song].copy_(device.upload(noise(request.seed + song, request.latent_frames, channels), "noise"))
    times = schedule(steps_for(variant, request.steps), request.shift)
    scale = guidance_for(variant, request.guidance_scale)
    guidance = Guidance(scale) if scale > 1.0 else None
    first, last = request.guidance_interval
    with place.placement.use(TRANSFORMER):
        denoiser = Denoiser(
            place.components.transformer, place.kernels(), place.placement.use_block, place.row_functions()
        )
        for step, now in enumerate(times):
            velocity = denoiser.velocity(latents, conditions.context, conditions.condition, now)
            if guidance is not None and first <= 1.0 - now <= last:
                unguided = denoiser.velocity(latents, conditions.context, conditions.unguided, now)
                velocity = guidance.combine(velocity, unguided)
                del unguided
            if conditions.uncovered is not None:
                plain = denoiser.velocity(latents, conditions.context, conditions.uncovered, now)
                velocity.mul_(request.cover_strength).add_(plain, alpha=1.0 - request.cover_strength)
                del plain
            after = times[step + 1] if step + 1 < len(times) else 0.0
            latents.add_(velocity, alpha=after - now)
            del velocity
            progress("denoise", step + 1, len(times))
    return latents
