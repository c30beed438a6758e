"""The velocities of a step: all its passes together, and one after another from the step on for which memory ran out.

That the card had the memory in one piece is no promise: a kernel may want a workspace that was not counted, and another
program may take memory in between.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from acestep.devices.base import Device
from acestep.devices.out_of_memory import free_unused, one_out_of_memory_error
from acestep.dit.denoiser import Denoiser


class Velocities:
    """Computes velocities with `denoiser` for `context` [1 or batch, frames, 128] on `device`.

    `together`: the passes of a step go together, until memory runs out for that.
    """

    def __init__(self, denoiser: Denoiser, context: Tensor, device: Device, *, together: bool) -> None:
        self._denoiser = denoiser
        self._context = context
        self._device = device
        self._together = together

    def of(self, latents: Tensor, conditions: Sequence[Tensor], timestep: float) -> list[Tensor]:
        """Return the velocity [batch, frames, 64] for each embedded condition, the same bits however they are computed.

        `latents` are not changed. Raises an out-of-memory error of the backend if not even one pass fits.
        """
        if self._together and len(conditions) > 1:
            try:
                with one_out_of_memory_error():
                    return self._denoiser.velocities(latents, self._context, conditions, timestep)
            except torch.OutOfMemoryError:
                self._together = False
            free_unused(self._device)
        return [self._denoiser.velocity(latents, self._context, given, timestep) for given in conditions]
