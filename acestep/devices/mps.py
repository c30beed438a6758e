"""An Apple GPU: memory is the host's, and Metal keeps the books."""

import numpy as np
import torch
from torch import Tensor

from acestep.devices.in_order import InOrder
from acestep.memory.workspace import MATRIX_WORKSPACE


class MpsDevice(InOrder):
    """Computes in float32: bf16-trained weights overflow in fp16 there."""

    torch_device = torch.device("mps")
    dtype = torch.float32
    grouped_attention = False
    matrix_workspace = MATRIX_WORKSPACE
    shares_host_memory = False

    def upload(self, host: Tensor, owner: str) -> Tensor:  # noqa: ARG002 the protocol's argument
        """Copy into a Metal buffer."""
        return host.to(self.torch_device)

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Copy into host memory."""
        torch.from_numpy(host).copy_(source)

    def reserve(self, n_bytes: int, owner: str) -> Tensor:  # noqa: ARG002
        """A Metal buffer."""
        return torch.empty(n_bytes, dtype=torch.uint8, device=self.torch_device)

    def free_bytes(self) -> int:
        """What Metal recommends as a working set, less what its driver holds."""
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())

    def empty_cache(self) -> None:
        """Return unused buffers."""
        torch.mps.empty_cache()

    def synchronize(self) -> None:
        """Wait for the GPU."""
        torch.mps.synchronize()

    def begin_stage(self, name: str) -> None:
        """Metal keeps no peaks."""

    def end_stage(self) -> tuple[int, int]:
        """Metal keeps no peaks."""
        return 0, 0
