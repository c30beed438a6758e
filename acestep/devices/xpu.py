"""An Intel card."""

import torch

from acestep.devices.accelerator import Accelerator
from acestep.memory.workspace import MATRIX_WORKSPACE


class XpuDevice(Accelerator):
    """The first Intel card, in bf16; its attention kernels want keys and values expanded."""

    def __init__(self) -> None:
        super().__init__(torch.xpu, torch.device("xpu", 0), torch.bfloat16, grouped=False, workspace=MATRIX_WORKSPACE)
