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
    """A kernel that is launched until Triton cannot compile it; then the log says once what is `slower` without it."""

    def __init__(self, slower: str) -> None:
        self.compiles = True
        self._slower = slower

    def computed(self, near: Tensor, launch: Callable[[], bool]) -> bool:
        """Call `launch` for the card of the tensor `near`; return whether it computed.

        It returns False where it cannot read its tensors, and is tried again in the next call. A full card and a broken
        one, whose errors are raised, are no missing compiler either.
        """
        if not self.compiles:
            return False
        try:
            with torch.cuda.device_of(near):  # type: ignore[no-untyped-call]
                return launch()
        # Triton has no common class for the ways in which it and the system's compiler can fail.
        except Exception as error:
            if ran_out(error) or is_card_fault(error):
                raise
            self.compiles = False
            # Triton's own error begins with the place in the kernel; what went wrong there is its cause.
            reason = first_line(error.__cause__ or error)
            _LOG.warning("%s takes longer than it could, as Triton made no kernel: %s", self._slower, reason)
            return False
