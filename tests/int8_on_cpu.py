"""Our operator of INT8 products on the CPU, for tests of what calls it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def int8_products_by(compute: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the operator computes on the CPU what `compute(rows, weight, scale)` returns."""
    with torch.library._scoped_library("acestep", "IMPL") as operators:
        operators.impl("int8_product", compute, "CPU")
        yield
