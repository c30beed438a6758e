"""The memory that kernels allocate besides the program's tensors, by device.

On meta tensors PyTorch always takes the math kernel for attention; a card does not. So the attention call is
intercepted before dispatch, with the allocations of the kernel that the modelled device would choose.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from acestep.budgets import System
from acestep.hardware.card import SIMULATED_CAPABILITY
from acestep.limits.capabilities import AMPERE, TRITON_CAPABILITY, TorchRelease, matrix_workspace
from acestep.units import MIB, ceil_div
from calibrate.probes.simulated.work_counter import WorkCounter

MASK_ALIGNMENT = 16
"""The memory-efficient kernel copies a mask whose last dimension is not a multiple of this (aten sdp preprocess_mask).
"""

CUDNN_CHANNELS = 8
CUDNN_HEADER_BYTES = 512


class Workspaces(Protocol):
    """Allocations inside library calls, whether Triton compiles kernels, and the counter of the work of all kernels."""

    work: WorkCounter
    has_triton: bool

    @property
    def matmul_bytes(self) -> int:
        """Allocated once, at the first matrix product, and kept."""
        ...

    def convolution(self, source: Tensor, filters: Tensor, result: Tensor, *, transposed: bool) -> int:
        """Allocated during one convolution."""
        ...


class AttentionKernels:
    """As a context manager, it replaces `F.scaled_dot_product_attention` for queries on meta.

    A torch function mode would intercept that call as well, but also every other one: a tenth of the tracing time.
    """

    has_triton = False

    def __init__(self) -> None:
        self.work = WorkCounter()
        self._usual: list[Callable[..., Tensor]] = []

    def __enter__(self) -> Self:
        usual = F.scaled_dot_product_attention

        def answer(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return (self.attention if query.device.type == "meta" else usual)(query, *args, **kwargs)

        self._usual.append(usual)
        F.scaled_dot_product_attention = answer
        return self

    def __exit__(self, *_: object) -> None:
        F.scaled_dot_product_attention = self._usual.pop()

    def attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the result [batch, heads, rows, dim] after the allocations of the chosen kernel."""
        raise NotImplementedError

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return an empty result, laid out [batch, rows, heads, dim] as the fused kernels write it."""
        batch, heads, rows, width = query.shape
        result = query.new_empty(batch, rows, heads, width).transpose(1, 2)
        self.work.attention(query, key, value, mask, result)
        return result


class CudaKernels(AttentionKernels):
    """Attention and workspaces on a CUDA card with some compute capability, cuDNN attention switched off.

    `flash` says whether PyTorch was built with its flash kernel, and `triton` whether Triton is installed: on Windows
    neither is. `torch_is` is PyTorch's release, None for a current one.
    """

    def __init__(
        self,
        capability: tuple[int, int],
        *,
        flash: bool = True,
        triton: bool = True,
        torch_is: TorchRelease | None = None,
    ) -> None:
        super().__init__()
        self.capability = capability
        # What acestep computes in there (`acestep.limits.capabilities.computes_in_float32`).
        self.dtype = torch.bfloat16 if capability >= AMPERE else torch.float32
        self.matmul_bytes = matrix_workspace(capability, torch_is)
        # The flash kernel (aten sdp_utils.cpp, check_flash_attention_hardware_support).
        self.has_flash = flash and capability >= AMPERE
        self.has_triton = triton and capability >= TRITON_CAPABILITY

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Return the result [batch, heads, rows, dim] after the allocations of the chosen kernel."""
        batch, heads, rows, _ = query.shape
        grouped = enable_gqa and heads != key.shape[1]
        half = query.dtype in (torch.bfloat16, torch.float16)
        if self.has_flash and half and attn_mask is None:
            result = self._fused(query, key, value, None)
            # Log-sum-exp per row and the random-number state live until the kernel returns.
            log_sum_exp = torch.empty(batch, heads, rows, dtype=torch.float32, device="meta")
            del log_sum_exp
            return result
        if not grouped:
            result = self._fused(query, key, value, attn_mask)
            if attn_mask is not None and attn_mask.shape[-1] % MASK_ALIGNMENT:
                columns = ceil_div(attn_mask.shape[-1], MASK_ALIGNMENT) * MASK_ALIGNMENT
                padded = attn_mask.new_empty(*attn_mask.shape[:-1], columns)
                del padded
            return result
        return torch.ops.aten._scaled_dot_product_attention_math(  # type: ignore[no-any-return]
            query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]

    def convolution(
        self,
        source: Tensor,
        filters: Tensor,  # noqa: ARG002 the protocol's arguments
        result: Tensor,
        *,
        transposed: bool,  # noqa: ARG002
    ) -> int:
        """An allowance of one copy of input and output in the layout cuDNN prefers, until it is measured on a card."""
        return source.numel() * source.element_size() + result.numel() * result.element_size()


def kernels_on(
    system: System, capability: tuple[int, int] = SIMULATED_CAPABILITY, torch_is: TorchRelease | None = None
) -> CudaKernels:
    """The kernels of PyTorch's wheels for a system; those for Windows have no flash kernel and bring no Triton."""
    here = system is not System.WINDOWS
    return CudaKernels(capability, flash=here, triton=here, torch_is=torch_is)


class CudnnKernels(CudaKernels):
    """As `CudaKernels`, with the workspaces that cuDNN 9.20 chose, seen with its real heuristics.

    Records are made with the allowance; this is for comparing with a card to the byte.
    """

    MORE: Final[dict[tuple[tuple[int, int], bool, tuple[int, ...]], int]] = {
        ((8, 6), True, (2048, 1024, 20)): 200 * MIB,
        ((8, 6), True, (128, 128, 4)): 8 * MIB,
        ((8, 9), False, (1024, 1024, 7)): 120 * MIB,
    }
    """What some convolutions take besides copies: by capability, whether it is transposed, and the filter's shape."""

    def convolution(self, source: Tensor, filters: Tensor, result: Tensor, *, transposed: bool) -> int:
        """Copies of input, output and filter with the channels last, filled up to eights; none for a single tap.

        In float32 there are none before Ampere.
        """
        if filters.shape[-1] == 1 or self.dtype is torch.float32:
            return 0
        more = self.MORE.get((self.capability, transposed, tuple(filters.shape)), 0)
        rows = ceil_div(filters.shape[0], CUDNN_CHANNELS) * CUDNN_CHANNELS
        copies = _channels_last(source) + _channels_last(result) + rows * _channels_last(filters[:1])
        return copies + CUDNN_HEADER_BYTES + more


def _channels_last(tensor: Tensor) -> int:
    """The bytes of a copy whose channels are filled up to eights."""
    channels = ceil_div(tensor.shape[1], CUDNN_CHANNELS) * CUDNN_CHANNELS
    return tensor.numel() // tensor.shape[1] * channels * tensor.element_size()
