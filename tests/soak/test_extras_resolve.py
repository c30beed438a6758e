"""Each combination of extras has a solution of its own in the package index, with the libraries that were asked for."""

import pytest

from tests.extras import COMBINATIONS, packages, resolve

BRINGS = {"vllm": "vllm", "ray": "ray", "mlx": "mlx-lm"}


@pytest.mark.soak
@pytest.mark.parametrize("extras", COMBINATIONS, ids=lambda extras: "+".join(extras) or "none")
def test_a_combination_of_extras_has_a_solution(extras: tuple[str, ...]) -> None:
    found = packages(resolve(extras))
    assert {"torch", "transformers", "gradio"} <= found
    assert {extra for extra, package in BRINGS.items() if package in found} == BRINGS.keys() & set(extras)
    assert "matplotlib" in found or "calibrate" not in extras
