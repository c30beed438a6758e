"""What the ledger asks about an operation each time that it runs, found out once: operations hash slowly."""

from typing import Any, NamedTuple

import torch

from calibrate.probes.simulated.work_counter import CONVOLUTIONS, PRODUCTS


class Operation(NamedTuple):
    """About one operation of PyTorch, which is kept, so that no other gets its id.

    `gives_one_tensor`: its schema promises one new tensor, or it is elementwise and changes its first argument.
    """

    func: Any
    is_view: bool
    is_product: bool
    is_convolution: bool
    gives_one_tensor: bool


_KNOWN: dict[int, Operation] = {}


def about(func: Any) -> Operation:
    """Return what is known about an operation."""
    known = _KNOWN.get(id(func))
    if known is None:
        known = _KNOWN[id(func)] = Operation(
            func=func,
            is_view=func.is_view,
            is_product=func in PRODUCTS,
            is_convolution=func in CONVOLUTIONS,
            gives_one_tensor=_gives_one_tensor(func),
        )
    return known


def _gives_one_tensor(func: Any) -> bool:
    schema = func._schema
    if len(schema.returns) != 1 or str(schema.returns[0].type) != "Tensor":
        return False
    written = [argument for argument in schema.arguments if argument.alias_info is not None]
    if not written:
        return schema.returns[0].alias_info is None
    in_place = written == schema.arguments[:1] and written[0].alias_info.is_write
    return in_place and torch.Tag.pointwise in func.tags
