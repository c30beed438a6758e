"""Everything in this folder runs on virtual cards; without their library each test is skipped, and the reason told.

This process itself is on a machine with one card of each of `CAPABILITIES`, so that PyTorch is imported once. Tests of
the library alone start short processes without PyTorch.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.virtual.processes import SANITIZER, SHARED
from virtual_card.machine import RunningMachine, is_built

HERE = Path(__file__).parent

# A process of xdist inherits the machine of the one that started it, and gets one of its own.
if is_built() and not SANITIZER and ("VIRTUAL_CARD_MACHINE" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ):
    SHARED.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_built(SANITIZER):
        return
    for item in items:
        if item.path.is_relative_to(HERE):
            reason = "the virtual card is not built for this PyTorch; `make test-virtual` builds and tests it"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def machine() -> RunningMachine:
    """The machine that this process is on."""
    assert SHARED.machine is not None
    return SHARED.machine


@pytest.fixture(autouse=True, scope="session")
def _folder_goes() -> Iterator[None]:
    yield
    SHARED.stop()
