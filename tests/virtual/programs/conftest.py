"""One full-size model and the controls of the card, for the tests that make songs in the tests' own process."""

import gc
from collections.abc import Iterator

import pytest
import torch

from acestep.checkpoints.components import Components
from acestep.devices.accelerator import CudaDevice
from acestep.knobs import Knobs
from tests.on_a_card import loaded
from tests.virtual.processes import SHARED
from virtual_card.controls import Control, Controls

SET_HERE = (
    Control.OTHERS_BYTES,
    Control.FAIL_ALLOCATION,
    Control.FAIL_ALLOCATION_TIMES,
    Control.REFUSE_PAGE_LOCKING,
)


@pytest.fixture(scope="session")
def components() -> Components:
    """Loaded once: every pipeline that is closed leaves the card as it found it."""
    return loaded(CudaDevice(), Knobs(), "dummy")


@pytest.fixture
def controls() -> Iterator[Controls]:
    """Without a fault and without others, before and after each test.

    Page-locking is refused meanwhile: weights of full size then stay mapped noise, of which nothing is read or kept in
    main memory, and the card holds the same.
    """
    assert SHARED.machine is not None
    controls = SHARED.machine.controls
    torch.cuda.empty_cache()
    controls.set(Control.REFUSE_PAGE_LOCKING, 1)
    yield controls
    for control in SET_HERE:
        controls.set(control, 0)
    gc.collect()
    torch.cuda.empty_cache()
