"""Where a stage runs: the device, the parts, and how to bring them there."""

import msgspec

from acestep.devices.base import Device
from acestep.knobs import Knobs
from acestep.memory.placement import Placement
from acestep.models.attention import Kernels
from acestep.models.components import Components


class Place(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What every stage is given; `vae_chunk` is the decode tile asked for in latent frames, 0 for a free choice."""

    components: Components
    knobs: Knobs
    device: Device
    placement: Placement
    vae_chunk: int = 0

    def kernels(self) -> Kernels:
        """Attention for one stage; its band masks go when the stage does."""
        return Kernels(grouped=self.device.grouped_attention)
