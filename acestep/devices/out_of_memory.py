"""One exception class for running out of memory, for every backend."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch

from acestep.devices.base import Device
from acestep.devices.refusals import REFUSALS

_SIGNS = re.compile("|".join([*(text for _, text in REFUSALS), "unable to find an engine to execute this"]))
"""cuDNN tries one engine after another, and where the workspace of none fits it only says that it found none
(aten/src/ATen/native/cudnn/Conv_v8.cpp). It says the same of a type that it does not know, so no probe relies on it.
"""


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, in the words of any library."""
    refused = isinstance(error, RuntimeError) and bool(_SIGNS.search(str(error)))
    return refused or isinstance(error, torch.OutOfMemoryError)


@contextmanager
def one_out_of_memory_error() -> Iterator[None]:
    """Raise every backend's out-of-memory error inside the block as `torch.OutOfMemoryError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not ran_out(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from None


@contextmanager
def no_tensors_in_traceback() -> Iterator[None]:
    """Free what the calls inside the block held when one of them raised an error, before the block is left.

    The traceback would keep their tensors alive until the error is handled, and one view keeps a whole allocation. What
    a function uses of the one around it stays: Python does not let go of that.
    """
    try:
        yield
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:
            clear_frames(cause.__traceback__)
            cause = cause.__context__
        raise


def free_unused(device: Device) -> None:
    """Give the device back the memory of tensors that are no longer used.

    After running out of memory it is called after the except block: inside it, the traceback keeps the tensors of the
    failed attempt alive.
    """
    gc.collect()
    device.empty_cache()
