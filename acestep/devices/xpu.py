"""An Intel card."""

import torch

from acestep.devices.accelerator import Accelerator
from acestep.memory.workspace import MATRIX_WORKSPACE


class XpuDevice(Accelerator):
    """The Intel card of an index of torch's, in bf16; its attention kernels want keys and values expanded."""

    def __init__(self, index: int = 0) -> None:
        if index:
            torch.xpu.set_device(index)
        super().__init__(
            torch.xpu, torch.device("xpu", index), torch.bfloat16, grouped=False, workspace=MATRIX_WORKSPACE
        )
