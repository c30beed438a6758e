"""Everything in this folder needs Ray, and runs with `make test-ray`."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ray.clusters import LocalCluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.ray)
        # Ray and what it imports warn of each other; none of it is about this code.
        item.add_marker(pytest.mark.filterwarnings("default"))
        if not find_spec("ray"):
            item.add_marker(pytest.mark.skip(reason="Ray is not installed here; `make test-ray` has it"))


@pytest.fixture(scope="session")
def cluster() -> "Iterator[LocalCluster]":
    """Three nodes, each with a card of another kind."""
    from tests.ray.clusters import local_cluster

    with local_cluster([["H100"], ["L4"], ["A100"]]) as started:
        yield started
