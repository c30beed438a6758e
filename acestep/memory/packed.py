"""Weights of linear layers in the order in which oneDNN reads them, for models that run on the CPU.

`F.linear` takes a weight as the file has it: in bfloat16 oneDNN reorders it at every call, and in float32 MKL reads it,
which on a processor that is not Intel's uses half of the vector units. Packed once, the same weight takes about half of
the time: for a few rows, which is the time of reading it, and in float32 for many rows too. The packed weight takes the
place of the other one.

In bfloat16 a product has the same bits as before, on an EPYC with AVX512-BF16. In float32 sums are rounded differently.
"""

from typing import Final

import torch
from torch import Tensor, nn

from acestep.checkpoints.libraries import ResidualFSQ

PACKED_FOR_ROWS: Final = 32
"""The rows that the order is chosen for. It is as fast as the one for 1 row in bfloat16, and faster in float32, for 1
row as for 512.
"""

NARROWEST: Final = 128
"""The smallest height and width of a weight in a stack that many rows pass. Measured with 1,500 rows in float32:
128 x 128 takes 0.45 of the time packed, as larger ones do.
"""


def packs(dtype: torch.dtype) -> bool:
    """Return whether this processor packs weights of a dtype."""
    # On other processors oneDNN calls libraries whose speed is not known to us.
    capable = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    if not capable or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    bf16 = dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 not public
    return bf16 or dtype is torch.float32


def can_pack(weight: Tensor, least: int) -> bool:
    """Return whether this processor packs a weight [out, in], and neither side is below `least`."""
    return weight.device.type == "cpu" and weight.dim() == 2 and min(weight.shape) >= least and packs(weight.dtype)


def packed_weight(weight: Tensor) -> Tensor:
    """Return a weight [out, in] in oneDNN's order; only `packed_product` can read it."""
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACKED_FOR_ROWS)  # noqa: SLF001 not public
    return made


def packed_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `rows` [..., in] times the transpose of a packed weight [out, in], plus a bias [out]."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # noqa: SLF001 not public
    return made


class CpuLinear(nn.Linear):
    """A linear layer whose weight is packed; made by `pack_linears`.

    A packed weight has no storage and no gradient: it cannot be copied, saved or converted.
    """

    def forward(self, rows: Tensor) -> Tensor:
        return packed_product(rows, self.weight, self.bias)


def parents_of_layers(model: nn.Module) -> list[nn.Module]:
    """Return the modules that hold layers, without the layers: a list of all would keep every weight until its end."""
    return [module for module in model.modules() if not isinstance(module, nn.Linear)]


def pack_linears(model: nn.Module) -> None:
    """Pack the float32 weights of linear layers of `model` in place, one after the other.

    In bfloat16 many rows take 0.93 to 0.98 of the time packed, and a weight that is a memory map of its file would
    become memory of the process; such weights stay as they are, and quantised ones. So do those of the quantizer of
    audio tokens: diffusers computes with the weights themselves there.
    """
    for parent in parents_of_layers(model):
        if isinstance(parent, ResidualFSQ):
            continue
        for name, _ in list(parent.named_children()):
            packed = _packed(getattr(parent, name))
            if packed is not None:
                setattr(parent, name, packed)


def _packed(layer: nn.Module) -> CpuLinear | None:
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        return None
    if layer.weight.dtype is not torch.float32 or not can_pack(layer.weight, NARROWEST):
        return None
    packed: CpuLinear = nn.Module.__new__(CpuLinear)
    # Only the class and the order of the weight are new.
    packed.__dict__ = {**layer.__dict__, "_parameters": dict(layer._parameters)}  # noqa: SLF001 as a copy
    packed.weight = nn.Parameter(packed_weight(layer.weight), requires_grad=False)
    return packed
