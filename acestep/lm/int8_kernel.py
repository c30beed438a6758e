"""A few rows times INT8 weights as a Triton kernel. Importing this imports Triton, which not every PyTorch brings.

Reading the weights takes longer than multiplying them, so the kernel multiplies and sums without tensor cores, which
know no float32 and, before Ampere, no bfloat16. In bfloat16, by the instructions of the compiled loop, a multiprocessor
of Ampere or Ada multiplies 19 weights in a cycle with 2 rows, 7 with 8 rows and 3 with 16. On cards of 8 to 12 GB, for
which INT8 is meant, 4 to 7 weights reach it meanwhile. So with up to 8 rows, of four guided songs, it waits for memory;
16 rows take twice as long as reading, which is still less than unpacking moves.

A program computes a few outputs whole: its threads read one run of each weight row after the other, side by side, and
their sums are added once at the end. Nothing is added by several programs, so the same numbers give the same bits.
"""

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

WARPS: Final = 4

THREADS: Final = 32 * WARPS
"""Of one program, 128: the narrowest weight, of 1,024 numbers, is one run for each of them in a 16-bit type."""

RUN_BYTES: Final = 16
"""Of a row of numbers in one thread: the most that a thread loads at once. The weights of these numbers are read by the
same thread: 8 bytes each in a 16-bit type, 4 in float32, and a warp's lie side by side.
"""

SUMS: Final = 32
"""Kept by each thread, in one register each. With what else it needs that is at most 128 registers on every card, of
which a multiprocessor has enough for 4 programs.
"""

OUTPUTS: Final = 4
"""Of one program with few rows: as many loads are under way in each thread, and the smallest weight, of 1,024 outputs,
is still work for 256 programs.
"""


# Triton compiles annotations too, and knows none but its own. The number of rows falls while songs end, and the kernel
# is compiled again only when their next power of two does.
@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _product(  # type: ignore[no-untyped-def]
    result,
    rows,
    weight,
    scale,
    count,
    outputs,
    width,
    most_rows: tl.constexpr,
    most_outputs: tl.constexpr,
    threads: tl.constexpr,
    run: tl.constexpr,
):
    """Compute `most_outputs` columns of the `result` [count, outputs] of `rows` [count, width]."""
    dtype = result.dtype.element_ty
    row = tl.arange(0, most_rows)
    output = tl.program_id(0) * most_outputs + tl.arange(0, most_outputs)
    # All tensors have the axes rows, outputs, threads, numbers in a run, so that none changes its threads.
    some_rows, some_outputs = row[:, None, None, None], output[None, :, None, None]
    run_starts = (tl.arange(0, threads) * run)[None, None, :, None]
    offsets = run_starts + tl.arange(0, run)[None, None, None, :]
    sums = tl.zeros((most_rows, most_outputs, threads), tl.float32)
    for start in range(0, width, threads * run):
        at = start + offsets
        numbers = tl.load(
            rows + some_rows * width + at,
            mask=(some_rows < count) & (at < width),
            other=0.0,
            eviction_policy="evict_last",
        )
        weights = tl.load(
            weight + some_outputs.to(tl.int64) * width + at,
            mask=(some_outputs < outputs) & (at < width),
            other=0,
            eviction_policy="evict_first",
        )
        sums += tl.sum(numbers.to(tl.float32) * weights.to(tl.float32), axis=3)
    # Rounded as the library does: the sum, then its product with the scale.
    total = tl.sum(sums, axis=2).to(dtype).to(tl.float32)
    scales = tl.load(scale + output, mask=output < outputs, other=0.0).to(dtype).to(tl.float32)
    inside = (row < count)[:, None] & (output < outputs)[None, :]
    tl.store(result + row[:, None] * outputs + output[None, :], (total * scales[None, :]).to(dtype), mask=inside)


def launch_product(result: Tensor, rows: Tensor, weight: Tensor, scale: Tensor) -> None:
    """Compute `result` [rows, out] from `rows` [rows, in], `weight` [out, in] and `scale`, one number for each output.

    All are contiguous, and `result` and `rows` have one dtype.
    """
    count, width = rows.shape
    most_rows = triton.next_power_of_2(count)
    most_outputs = min(OUTPUTS, max(1, SUMS // most_rows))
    _product[(triton.cdiv(len(weight), most_outputs),)](
        result,
        rows,
        weight,
        scale,
        count,
        len(weight),
        width,
        most_rows=most_rows,
        most_outputs=most_outputs,
        threads=THREADS,
        run=RUN_BYTES // rows.itemsize,
        num_warps=WARPS,
    )
