"""Flow-matching sampler: the timestep schedule, guidance, and one Euler step at a time."""

import torch
from torch import Tensor

from acestep.knobs import Variant

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
