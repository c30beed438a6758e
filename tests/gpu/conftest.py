"""Everything in this folder needs a CUDA card; without one each test is skipped, with the reason, and counted.

On a virtual card, which computes nothing, those marked `values` are skipped too; others leave out with `computes` what
they say about values.
"""

import pytest
import torch

from calibrate.probes.virtual_marks import virtual_marks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = torch.cuda.is_available()
    lacking = {"gpu": "no CUDA card on this machine"} if not here else {"values": "a virtual card computes nothing"}
    if here and not is_virtual():
        return
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def is_virtual() -> bool:
    return bool(virtual_marks(name=torch.cuda.get_device_name(0), uuid="", driver=""))


@pytest.fixture
def computes() -> bool:
    """Whether what a kernel of this card gives means anything."""
    return not is_virtual()
