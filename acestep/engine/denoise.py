"""Noise to latents: Euler steps along the velocities that the DiT predicts."""

import msgspec
import torch
from torch import Tensor

from acestep.checkpoints.architecture import Architecture
from acestep.devices.base import Device
from acestep.devices.out_of_memory import one_out_of_memory_error
from acestep.dit.denoiser import Denoiser
from acestep.dit.place import StageContext
from acestep.dit.sampler import (
    Guidance,
    advance,
    correction_for,
    from_level,
    guidance_for,
    noise,
    schedule,
    steps_for,
)
from acestep.engine.encode import Conditions
from acestep.engine.outside import Outside
from acestep.engine.velocities import Velocities
from acestep.knobs import unpacks
from acestep.limits.workspace import Steps
from acestep.memory.placement import TRANSFORMER
from acestep.request import Request
from acestep.stage import Stage
from acestep.units import Progress


def denoise(request: Request, conditions: Conditions, place: StageContext, progress: Progress) -> Tensor:
    """Clean latents [batch, frames, 64] in float32."""
    device = place.device
    channels = conditions.context.shape[-1] // 2
    times = schedule(steps_for(place.components.variant, request.steps), request.shift)
    latents = torch.empty(request.batch, request.latent_frames, channels, device=device.torch_device)

    def noise_of(song: int) -> Tensor:
        return noise(request.seed + song, request.latent_frames, channels)

    for song in range(request.batch):
        latents[song].copy_(device.upload(noise_of(song), "noise"))
    if request.cover_noise and conditions.recorded is not None:
        times = from_level(times, 1.0 - request.cover_noise)
        latents.mul_(times[0]).add_(conditions.recorded, alpha=1.0 - times[0])
    kept = None
    if request.keeps_outside and conditions.recorded is not None:
        kept = Outside(request, conditions.recorded, noise_of, device)
    with place.placement.use(TRANSFORMER):
        _steps(latents, times, request, conditions, place, progress, kept)
    if kept is not None:
        kept.fade(latents)
    return latents


def _steps(
    latents: Tensor,
    times: list[float],
    request: Request,
    conditions: Conditions,
    place: StageContext,
    progress: Progress,
    kept: Outside | None,
) -> None:
    """Change `latents` in place from noise to songs; all other tensors are freed on return."""
    variant, transformer, kernels = place.components.variant, place.components.transformer, place.kernels()
    scale, correction = guidance_for(variant, request.guidance_scale), correction_for(variant, request)
    guided = scale > 1.0
    guidance, (first, last) = Guidance(scale), request.guidance_interval
    passes = _passes(latents, conditions, place, guided=guided)
    place.device.make_room(passes.room_bytes)
    denoiser = Denoiser(transformer, kernels, place.placement.use_block, place.row_functions())
    condition = denoiser.embed(conditions.condition)
    unguided = denoiser.embed(conditions.unguided) if guided else None
    uncovered = None if conditions.uncovered is None else denoiser.embed(conditions.uncovered)
    made = Velocities(denoiser, conditions.context, place.device, together=passes.together)
    for step, now in enumerate(times):
        free = unguided if first <= 1.0 - now <= last else None
        wanted = [given for given in (condition, uncovered, free) if given is not None]
        velocities = made.of(latents, wanted, now)
        velocity = velocities.pop(0)
        if free is not None:
            velocity = guidance.combine(velocity, velocities.pop())
        if uncovered is not None:
            plain = velocities.pop()
            velocity.mul_(request.cover_strength).add_(plain, alpha=1.0 - request.cover_strength)
            del plain
        after = times[step + 1] if step + 1 < len(times) else 0.0
        advance(latents, velocity, now, after, correction)
        del velocity
        if kept is not None and step < kept.steps(len(times)):
            kept.put_back(latents, after)
        progress(Stage.DENOISE, step + 1, len(times))


def _passes(latents: Tensor, conditions: Conditions, place: StageContext, *, guided: bool) -> Steps:
    """What the steps take besides the weights; the passes of a step go together where that saves copies and fits."""
    songs, frames, _ = latents.shape
    _, condition_tokens, condition_width = conditions.condition.shape
    apart = Steps(
        architecture=msgspec.convert(dict(place.components.transformer.config), Architecture),
        songs=songs,
        frames=frames,
        condition_tokens=condition_tokens,
        condition_width=condition_width,
        itemsize=place.components.dtype.itemsize,
        grouped=place.device.grouped_attention,
        unpacks=unpacks(place.knobs.quantization),
        weak_cover=conditions.uncovered is not None,
        guided=guided,
        adapter_values=place.components.adapter_memory.row_values,
    )
    # Only streamed blocks are copied at every pass.
    if not (guided or apart.weak_cover) or not place.placement.streams(TRANSFORMER):
        return apart
    together = msgspec.structs.replace(apart, together=True)
    return together if _has_room(place.device, together.whole_bytes) else apart


def _has_room(device: Device, n_bytes: int) -> bool:
    """Return whether the device has so many bytes in one piece.

    The free bytes alone do not tell: some of them lie in segments that are partly used. And where a driver moves memory
    to the host, it refuses none.
    """
    device.empty_cache()
    if device.free_bytes() < n_bytes:
        return False
    try:
        with one_out_of_memory_error():
            device.make_room(n_bytes)
    except torch.OutOfMemoryError:
        return False
    device.empty_cache()
    return True
