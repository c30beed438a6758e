"""Whether one of our Triton kernels can be used; where it cannot, PyTorch's operations compute instead."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from acestep.devices.card_faults import is_card_fault
from acestep.devices.out_of_memory import ran_out
from acestep.errors import first_line

_LOG = logging.getLogger(__name__)


class TritonKernel:
    """A kernel that Triton compiles. After the first failure on a card in a dtype it is not tried there again.

    The log then says what is `slower` without it. `failed` are the cards and dtypes.
    """

    def __init__(self, slower: str) -> None:
        self.failed: set[tuple[torch.device, torch.dtype]] = set()
        self._slower = slower

    def compiles(self, near: Tensor) -> bool:
        """Return whether it has not failed on the card of the tensor `near`, in the dtype of that tensor."""
        return (near.device, near.dtype) not in self.failed

    def computed(self, near: Tensor, launch: Callable[[], bool]) -> bool:
        """Call `launch` for the card and dtype of the tensor `near`; return whether it computed.

        `launch` returns False where it cannot read its tensors, and is tried again in the next call. Out-of-memory and
        card errors are raised, and not counted as failures to compile.
        """
        if not self.compiles(near):
            return False
        try:
            with torch.cuda.device_of(near):  # type: ignore[no-untyped-call]
                return launch()
        # Triton has no common class for the ways in which it and the system's compiler can fail.
        except Exception as error:
            if ran_out(error) or is_card_fault(error):
                raise
            self.failed.add((near.device, near.dtype))
            # Triton's own error begins with the place in the kernel; what went wrong there is its cause.
            reason = first_line(error.__cause__ or error)
            _LOG.warning("%s takes longer than it could, as Triton made no kernel: %s", self._slower, reason)
            return False
