"""The Triton kernel of INT8 products: what it computes, by Triton's interpreter, and what each card takes for it."""

import importlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchao import quantization as torchao

from acestep.devices.accelerator import CudaDevice
from acestep.lm.int8_product import _kernel, int8_product, unpacked
from acestep.lm.products import FEW_ROWS, Products
from tests.virtual.processes import CAPABILITIES

int8_kernel: ModuleType = pytest.importorskip("acestep.lm.int8_kernel", reason="Triton is not installed here")

MOST_WIDTH = 5 * int8_kernel.THREADS * int8_kernel.RUN_BYTES
"""More than a program's threads read at once, in each dtype."""

TYPES = (torch.float32, torch.bfloat16, torch.float16)

COUNTS = (1, FEW_ROWS // 2, FEW_ROWS)
"""Rows of one sum, and of the most sums, in a thread; Triton compiles for each."""


INTERPRETER = """
import sys
import torch
from acestep.lm.int8_kernel import launch_product
cases = torch.load(sys.argv[1])
for case in cases:
    result = case.pop("result")
    launch_product(result[1:-1], **case)
    case["result"] = result
torch.save(cases, sys.argv[1])
"""


def interpreted(cases: Sequence[tuple[Tensor, Tensor, Tensor]], folder: Path) -> list[Tensor]:
    """The kernel's results as Triton's interpreter computes them, in a process of its own: it changes Triton for good.

    A row of NaN lies before and after each result: what is around must neither be read into sums nor be written.
    """
    asked = []
    for rows, weight, scale in cases:
        result = torch.full((len(rows) + 2, len(weight)), float("nan"), dtype=rows.dtype)
        asked.append({"rows": rows, "weight": weight, "scale": scale, "result": result})
    torch.save(asked, folder / "cases.pt")
    command = [sys.executable, "-c", INTERPRETER, str(folder / "cases.pt")]
    subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, check=True, timeout=300)
    results = [case["result"] for case in torch.load(folder / "cases.pt")]
    assert all(result[[0, -1]].isnan().all() for result in results)
    return [result[1:-1] for result in results]


def drawn(count: int, width: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, INT8 weights and their scales."""
    generator = torch.Generator().manual_seed(count * width * outputs)
    rows = torch.randn(count, width, generator=generator).to(dtype)
    weight = torch.randint(-128, 128, (outputs, width), generator=generator, dtype=torch.int8)
    return rows, weight, torch.rand(outputs, 1, generator=generator) / 100


def require_the_library_s(found: Tensor, rows: Tensor, weight: Tensor, scale: Tensor) -> None:
    """Require the library's numbers up to the order of their sums, and the last bit of two roundings to the dtype."""
    expected = unpacked(rows, weight, scale).double()
    largest = torch.mm(rows.double().abs(), weight.t().double().abs()) * scale.double().flatten()
    sums = rows.shape[1] * torch.finfo(torch.float32).eps * largest
    # Besides, the interpreter cuts bfloat16 off where a card rounds.
    rounded = 4 * torch.finfo(rows.dtype).eps * expected.abs()
    assert ((found.double() - expected).abs() <= sums + rounded).all()


def test_any_few_rows_and_any_width_give_the_library_s_numbers(tmp_path: Path) -> None:
    draw = random.Random(20)  # noqa: S311 a test case, not a secret
    cases = []
    for dtype in 8 * TYPES:
        width = draw.choice([draw.randint(1, 40), draw.randint(40, MOST_WIDTH), 16 * draw.randint(1, MOST_WIDTH // 16)])
        cases.append(drawn(draw.randint(1, FEW_ROWS), width, draw.randint(1, 11), dtype))
    for found, case in zip(interpreted(cases, tmp_path), cases, strict=True):
        require_the_library_s(found, *case)


def test_a_row_s_numbers_are_the_same_whatever_is_computed_beside_it(tmp_path: Path) -> None:
    rows, weight, scale = drawn(FEW_ROWS, 2_050, 9, torch.float32)
    together = [(rows[:count], weight, scale) for count in range(1, FEW_ROWS + 1)]
    alone, *others = interpreted(together, tmp_path)
    assert all(torch.equal(found[:1], alone) for found in others)


def quantised(width: int, outputs: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
    layer = nn.Sequential(nn.Linear(width, outputs, bias=False, device=device, dtype=dtype))
    torchao.quantize_(layer, torchao.Int8WeightOnlyConfig(set_inductor_config=False))
    return layer[0]


@pytest.mark.parametrize("index", range(len(CAPABILITIES)))
@torch.no_grad()
def test_every_card_loads_it_and_it_takes_nothing_but_its_result(index: int) -> None:
    device = CudaDevice(index=index)
    place = device.torch_device
    for dtype in TYPES if CAPABILITIES[index] >= (8, 0) else (torch.float32, torch.float16):
        for width, outputs, counts in ((2_048, 1_024, COUNTS), (2_047, 1_001, (1,))):
            weight: Any = quantised(width, outputs, place, dtype).weight
            for count in counts:
                rows = torch.empty(count, width, device=place, dtype=dtype)
                before = torch.cuda.memory_allocated(place)
                torch.cuda.reset_peak_memory_stats(place)
                result = int8_product(rows, weight)
                taken = torch.cuda.max_memory_allocated(place) - before
                assert (result.shape, result.dtype) == ((count, outputs), dtype)
                assert result.nbytes <= taken < result.nbytes + 512
                del result
    assert _kernel.compiles


class Kept:
    """A kernel that keeps what Triton compiled for each launch."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.compiled: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **kwargs: self.compiled.append(self._kernel[grid](*args, **kwargs))


def registers_and_stack(cubin: bytes, folder: Path) -> tuple[int, int]:
    """What a thread takes, as Triton's own tool reads it from the compiled kernel."""
    (folder / "kernel.cubin").write_bytes(cubin)
    tool = Path(importlib.import_module("triton").__file__ or "").parent / "backends/nvidia/bin/cuobjdump"
    command = [str(tool), "-res-usage", str(folder / "kernel.cubin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [found] = re.findall(r"REG:(\d+) STACK:(\d+)", said)
    return int(found[0]), int(found[1])


@pytest.mark.parametrize("index", range(len(CAPABILITIES)))
@torch.no_grad()
def test_four_programs_run_at_a_time_with_all_in_registers_and_weights_are_loaded_side_by_side(
    index: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = CudaDevice(index=index).torch_device
    kept, properties = Kept(int8_kernel._product), torch.cuda.get_device_properties(place)
    monkeypatch.setattr(int8_kernel, "_product", kept)
    for dtype in (torch.float32, torch.bfloat16 if CAPABILITIES[index] >= (8, 0) else torch.float16):
        weight: Any = quantised(1_024, 1_024, place, dtype).weight
        for count in COUNTS:
            int8_product(torch.empty(count, 1_024, device=place, dtype=dtype), weight)
    assert len(kept.compiled) == 2 * len(COUNTS)
    for compiled in kept.compiled:
        registers, stack = registers_and_stack(compiled.asm["cubin"], tmp_path)
        assert stack == 0
        assert 4 * int8_kernel.THREADS * registers <= properties.regs_per_multiprocessor
        assert not re.search(r"ld\.global\S*\.[bsu]8", compiled.asm["ptx"]), "weights come one by one"


@torch.no_grad()
def test_songs_that_end_seldom_make_triton_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    place = CudaDevice().torch_device
    kept, weight = Kept(int8_kernel._product), quantised(1_024, 1_024, place, torch.float32).weight
    monkeypatch.setattr(int8_kernel, "_product", kept)
    for count in range(1, FEW_ROWS + 1):
        int8_product(torch.empty(count, 1_024, device=place), weight)
    assert len({compiled.hash for compiled in kept.compiled}) == FEW_ROWS.bit_length()


@torch.no_grad()
def test_many_rows_are_the_library_s_on_a_card_too() -> None:
    device = CudaDevice()
    place = device.torch_device
    linear = quantised(1_024, 4_096, place, torch.bfloat16)
    products, taken = Products(device), []
    for count in (FEW_ROWS, FEW_ROWS + 1):
        rows = torch.empty(count, 1_024, device=place, dtype=torch.bfloat16)
        before = torch.cuda.memory_allocated(place)
        torch.cuda.reset_peak_memory_stats(place)
        products.layer(linear, rows)
        taken.append(torch.cuda.max_memory_allocated(place) - before)
    assert taken[0] < 2 * 1_024 * 4_096 < taken[1], "only the library unpacks the weight"
