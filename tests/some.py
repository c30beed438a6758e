"""Cases of which every run tries some, and `make soak` all."""

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(cases: Iterable[Any], count: int) -> list[Any]:
    """The cases of a parametrized test; those after the first `count` belong to the soak tests."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if number < count else pytest.mark.soak)
        for number, case in enumerate(cases)
    ]
