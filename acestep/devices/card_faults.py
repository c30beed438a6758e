"""One error for a card that stopped working in the middle of a run, whatever the backend raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from acestep.devices.out_of_memory import ran_out
from acestep.errors import CardFaultError

_FAULTS: Final = ("CUDA error:", "CUDA driver error:", "cuDNN error:", "HIP error:", "Triton Error [")
"""The beginnings of messages of failed calls to the card that libraries raise as a plain `RuntimeError`."""


def is_card_fault(error: BaseException) -> bool:
    """Return whether an error says that the card or its driver failed, for another reason than too little memory."""
    if not isinstance(error, RuntimeError) or ran_out(error):
        return False
    return isinstance(error, torch.AcceleratorError) or str(error).startswith(_FAULTS)


@contextmanager
def one_card_fault_error() -> Iterator[None]:
    """Inside, a card that stops working is a `CardFaultError`, which ends a command with a sentence."""
    try:
        yield
    except RuntimeError as error:
        if not is_card_fault(error):
            raise
        said = str(error).partition("\n")[0]
        raise CardFaultError(
            f"The card stopped working in the middle of a run ({said}), and this process cannot use it any more. Start"
            " the program again; if this happens again, update the card's driver or restart the computer."
        ) from error
