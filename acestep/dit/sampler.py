"""Flow-matching sampler: the timestep schedule, guidance, and one Euler step at a time."""

import msgspec
import torch
from torch import Tensor

from acestep.knobs import Variant
from acestep.request import Request

DEFAULT_STEPS = {Variant.TURBO: 8, Variant.XL_TURBO: 8}
GUIDED_STEPS = 50
"""Default steps: 8 for the distilled variants, 50 for base and sft (the published model zoo)."""

DEFAULT_GUIDANCE = 7.0
"""Default guidance of base and sft; turbo has guidance in its weights and runs at 1."""

APG_MOMENTUM = -0.75
APG_NORM_THRESHOLD = 2.5
"""Adaptive projected guidance with the tuning of base and sft: the momentum, and the cap on the update's norm over
time.
"""


def steps_for(variant: Variant, wish: int) -> int:
    """Return the number of steps of a run; a `wish` of 0 means the variant's default."""
    return wish or DEFAULT_STEPS.get(variant, GUIDED_STEPS)


def guidance_for(variant: Variant, wish: float) -> float:
    """The guidance scale a run uses; 1 is none. Turbo variants always run unguided."""
    return 1.0 if variant.is_turbo else wish or DEFAULT_GUIDANCE


def schedule(steps: int, shift: float) -> list[float]:
    """Timesteps from 1 down to, not including, 0: ``shift * u / (1 + (shift - 1) * u)`` over ``u = 1 - i / steps``."""
    even = [1.0 - i / steps for i in range(steps)]
    return [shift * u / (1.0 + (shift - 1.0) * u) for u in even]


def from_level(times: list[float], level: float) -> list[float]:
    """Return the timesteps from the one that is nearest to a noise level (1 is noise, 0 the song), at least one."""
    first = min(range(len(times)), key=lambda step: abs(times[step] - level))
    return times[first:]


def too_many_steps(variant: Variant, wish: int) -> tuple[str, ...]:
    """Return a warning if a distilled variant is to take more steps than it was trained for."""
    trained = DEFAULT_STEPS.get(variant, wish)
    if wish <= trained:
        return ()
    return (
        f"{variant} was trained to make a song in {trained} steps: {wish} take longer and often sound worse. Leave"
        " --steps out, or choose base or sft for more steps.",
    )


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """The wavelet correction of each step, in the Haar wavelet over pairs of frames.

    After a step the latents move away from the song that the step predicts: by `low` times the timestep in the mean of
    each pair, by `high` times what is left of the way in the difference (Yu et al., arXiv 2604.16044, in both bands).
    """

    low: float
    high: float


def correction_for(variant: Variant, request: Request) -> Correction | None:
    """Return the correction that a request asks for; by default turbo has one."""
    wanted = variant.is_turbo if request.dcw is None else request.dcw
    return Correction(low=request.dcw_scaler, high=request.dcw_high_scaler) if wanted else None


def advance(latents: Tensor, velocity: Tensor, now: float, after: float, correction: Correction | None = None) -> None:
    """Take one Euler step of `latents` [batch, frames, 64] along `velocity`, in place, and correct it.

    After an Euler step the latents differ from the predicted song by ``after * velocity``, so the correction is a share
    of a frame's own velocity and a share of its neighbour's, and takes no memory. A last frame without a neighbour is
    paired with zeros.
    """
    if correction is None:
        latents.add_(velocity, alpha=after - now)
        return
    low, high = now * correction.low, (1 - now) * correction.high
    latents.add_(velocity, alpha=after - now + after * (low + high) / 2)
    paired, across = latents.shape[1] // 2 * 2, after * (low - high) / 2
    latents[:, 0:paired:2].add_(velocity[:, 1:paired:2], alpha=across)
    latents[:, 1:paired:2].add_(velocity[:, 0:paired:2], alpha=across)


class Guidance:
    """Adaptive projected guidance of one run; it keeps its momentum from step to step."""

    def __init__(self, scale: float) -> None:
        from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

        self.scale = scale
        self._momentum = MomentumBuffer(APG_MOMENTUM)

    def combine(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided velocity of two velocities [batch, frames, 64]."""
        from diffusers.guiders.adaptive_projected_guidance import normalized_guidance

        guided: Tensor = normalized_guidance(
            pred_cond=conditional,
            pred_uncond=unconditional,
            guidance_scale=self.scale - 1.0,
            momentum_buffer=self._momentum,
            eta=0.0,
            norm_threshold=APG_NORM_THRESHOLD,
            use_original_formulation=True,
            norm_dim=(1,),
        )
        return guided


def noise(seed: int, frames: int, channels: int) -> Tensor:
    """Starting noise [frames, channels] of one song, float32 on the host: the same for every card, dtype and batch."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, channels, generator=generator, dtype=torch.float32)
