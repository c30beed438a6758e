"""The context of a stage: the device, the parts, and their placement."""

import msgspec

from acestep.checkpoints.components import Components
from acestep.devices.base import Device
from acestep.dit.attention import Kernels, flash_attention
from acestep.dit.blocks import EAGER, RowFunctions
from acestep.dit.compiled import compiled
from acestep.dit.kernel_choice import Kernel, LayerKind, choose_kernels
from acestep.knobs import Knobs
from acestep.memory.placement import Placement


class StageContext(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The inputs of every stage; `vae_chunk` is the requested decode tile in latent frames, 0 for automatic."""

    components: Components
    knobs: Knobs
    device: Device
    placement: Placement
    vae_chunk: int = 0

    def kernels(self) -> Kernels:
        """Return the attention for one stage; its band masks are freed with the stage."""
        backend, grouped = self.device.torch_device.type, self.device.grouped_attention
        flash = flash_attention() if backend == "cuda" else None
        chosen = choose_kernels(backend, self.knobs.attention, grouped=grouped, flash_attn=flash is not None)
        kernel = chosen[LayerKind.FULL].kernel
        return Kernels(
            grouped=grouped,
            in_blocks=kernel is Kernel.BLOCKS,
            flash=flash if kernel is Kernel.FLASH_ATTN else None,
        )

    def row_functions(self) -> RowFunctions:
        """Return a DiT block's row functions: compiled if the knobs say so and the device computes."""
        return compiled() if self.knobs.compile and self.device.computes else EAGER
