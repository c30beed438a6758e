"""Everything in this folder needs mlx-lm; without it each test is skipped, with the reason, and counted."""

from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        if find_spec("mlx_lm"):
            # What MLX imports warns of each other; none of it is about this code.
            item.add_marker(pytest.mark.filterwarnings("default"))
        else:
            item.add_marker(pytest.mark.skip(reason="mlx-lm is not installed here; `make test-vllm` has it"))
