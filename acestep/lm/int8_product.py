"""Products of a few rows with INT8 weights that are read as they are, where Triton runs.

The library unpacks a whole weight to the dtype of the rows for each product: in bfloat16 that reads one byte of each
weight, writes two and reads two. One kernel reads one byte, and takes no memory for unpacked weights. It adds
float32 sums in another order than the library, and its numbers are the same otherwise.

`acestep::int8_product` is an operator, so that whatever counts operations sees one. It exists for CUDA, and without
values on meta.
"""

from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from acestep.devices.triton_kernel import TritonKernel

_OPERATORS: Any = torch.library.Library("acestep", "FRAGMENT")  # type: ignore[no-untyped-call] # torch leaves it untyped
_OPERATORS.define("int8_product(Tensor rows, Tensor weight, Tensor scale) -> Tensor")

OPERATOR: Final = torch.ops.acestep.int8_product.default
"""Takes contiguous rows [rows, in], weights [out, in] and a scale for each output; returns [rows, out] in the dtype of
the rows.
"""


def is_int8(weight: Any) -> bool:
    """Return whether a quantised weight is plain INT8 with one scale for each output: torchao's `Int8WeightOnlyConfig`.

    Such a weight is symmetric: its zero points, where torchao keeps some, are zeros that its own product ignores too.
    """
    from torchao.quantization import Int8Tensor

    if not isinstance(weight, Int8Tensor):
        return False
    changes_rows = weight.act_quant_kwargs is not None or weight.act_pre_scale is not None
    side_by_side = weight.qdata.is_contiguous() and weight.scale.is_contiguous()
    whole_rows = weight.scale.numel() == len(weight) and weight.block_size[-1] == weight.shape[-1]
    return side_by_side and whole_rows and not changes_rows


def int8_product(rows: Tensor, weight: Any) -> Tensor:
    """Return `rows` [rows, in], of which there are few, times the transpose of a weight [out, in] that `is_int8`."""
    result: Tensor = OPERATOR(rows.contiguous(), weight.qdata, weight.scale)
    return result


def reads_int8(weight: Tensor) -> bool:
    """Return whether the kernel has not failed for the card and dtype of a weight; where it has, weights are unpacked.

    Rows have the dtype of the weight.
    """
    return _kernel.compiles(weight)


_kernel = TritonKernel("planning a song with INT8 weights")


def _on_cuda(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    result = rows.new_empty(len(rows), len(weight))
    if not result.numel():
        # A kernel cannot be launched for nothing, and that would count as a failure to compile it.
        return result

    launch = partial(_launched, result, rows, weight, scale)
    return result if _kernel.computed(rows, launch) else unpacked(rows, weight, scale)


# No function inside another, whose frame in a traceback could not let go of the weight (`no_tensors_in_traceback`).
def _launched(result: Tensor, rows: Tensor, weight: Tensor, scale: Tensor) -> bool:
    # Triton is not everywhere, and takes a while to import.
    from acestep.lm.int8_kernel import launch_product

    launch_product(result, rows, weight, scale)
    return True


def unpacked(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return the product as the library computes it (torchao, `int8_tensor.py`): by unpacking the whole weight."""
    return torch.mm(rows, weight.t().to(rows.dtype)) * scale.to(rows.dtype).flatten()


def _on_meta(rows: Tensor, weight: Tensor, _: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(weight))


_OPERATORS.impl("int8_product", _on_cuda, "CUDA")
_OPERATORS.impl("int8_product", _on_meta, "Meta")
