"""Products of a few rows with INT8 weights: which weights and rows the kernel takes, and what computes without it."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchao import quantization as torchao
from torchao.quantization import PerGroup, PerTensor

from acestep.checkpoints.lm import LanguageModel, build_lm, quantize_lm
from acestep.devices.cpu import CpuDevice
from acestep.devices.triton_kernel import TritonKernel
from acestep.knobs import Quantization
from acestep.lm import int8_product as product_module
from acestep.lm.backends.pt import PtBackend
from acestep.lm.int8_product import _on_cuda, int8_product, is_int8
from acestep.lm.products import FEW_ROWS, Products
from calibrate.probes.simulated.book import TraceBook
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.full_size_lm import FirstAllowed
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import Trace
from calibrate.probes.simulated.work_counter import work_between
from calibrate.probes.work import Work
from tests import failing_kernel
from tests.grammars import Counted, job_of

INT8 = torchao.Int8WeightOnlyConfig(set_inductor_config=False)
BY_GROUPS = torchao.Int8WeightOnlyConfig(granularity=PerGroup(16), set_inductor_config=False)
BY_TENSOR = torchao.Int8WeightOnlyConfig(granularity=PerTensor(), set_inductor_config=False)
ROWS_TOO = torchao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
FLOAT8 = torchao.Float8WeightOnlyConfig(set_inductor_config=False)


class TritonCard(CpuDevice):
    """A card made of ordinary memory that has Triton."""

    shares_host_memory = False
    has_triton = True


@pytest.fixture(autouse=True)
def _untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_module, "_kernel", TritonKernel("planning"))


def layer(config: Any, width: int = 48, outputs: int = 20, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(width)
    holder = nn.Sequential(nn.Linear(width, outputs, bias=False).to(dtype))
    if config is not None:
        torchao.quantize_(holder, config)
    return holder[0]


def fails_with(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a kernel that fails in the place of ours, and return its tries."""
    return failing_kernel.fails_with(problem, "acestep.lm.int8_kernel", "launch_product", monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, FEW_ROWS])
@torch.no_grad()
def test_without_a_compiler_the_numbers_are_the_library_s_and_the_log_says_it_once(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = fails_with(RuntimeError("Failed to find C compiler"), monkeypatch)
    linear, rows = layer(INT8, dtype=dtype), torch.randn(count, 48).to(dtype)
    weight = linear.weight
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(_on_cuda(rows, weight.qdata, weight.scale), linear(rows))
    assert len(tries) == len(caplog.records) == 1
    assert "Failed to find C compiler" in caplog.text


@pytest.mark.parametrize("problem", ["out of memory", "an illegal memory access was encountered"])
def test_a_full_card_and_a_broken_one_are_no_missing_compiler(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = fails_with(RuntimeError(f"Triton Error [CUDA]: {problem}"), monkeypatch)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=problem):
            _on_cuda(torch.ones(1, 4), torch.ones(2, 4, dtype=torch.int8), torch.ones(2, 1))
    assert len(tries) == 2, "it is tried again"


@pytest.mark.parametrize(
    ("config", "plain_int8"),
    [(None, False), (INT8, True), (BY_GROUPS, False), (BY_TENSOR, False), (ROWS_TOO, False), (FLOAT8, False)],
    ids=["none", "int8", "groups", "tensor", "w8a8", "fp8"],
)
@pytest.mark.parametrize(
    ("device", "count"),
    [(TritonCard(), 1), (TritonCard(), FEW_ROWS), (TritonCard(), FEW_ROWS + 1), (CpuDevice(), 1)],
    ids=["one row", "few", "many", "no Triton"],
)
@torch.no_grad()
def test_only_few_rows_and_plain_int8_are_not_the_library_s(
    device: CpuDevice, count: int, config: Any, plain_int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours: list[int] = []

    def seen(rows: Tensor, weight: Any) -> Tensor:
        ours.append(len(rows))
        return product_module.unpacked(rows, weight.qdata, weight.scale)

    monkeypatch.setattr("acestep.lm.products.int8_product", seen)
    linear, rows, products = layer(config), torch.randn(count, 48), Products(device)
    assert torch.equal(products.layer(linear, rows), linear(rows))
    taken = plain_int8 and device.has_triton and count <= FEW_ROWS
    assert ours == [count] * taken
    assert is_int8(linear.weight) == plain_int8
    assert products.can_record(linear.weight, count) == (config is None or taken)


def test_after_a_failure_products_are_not_recorded_but_of_another_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = fails_with(RuntimeError("out of resources"), monkeypatch)
    products, weight, other = Products(TritonCard()), layer(INT8).weight, layer(INT8, dtype=torch.bfloat16).weight
    assert products.can_record(weight, 2)
    _on_cuda(torch.ones(2, 48), weight.qdata, weight.scale)
    assert not products.can_record(weight, 2)
    assert products.can_record(layer(None).weight, 2)
    assert products.can_record(other, 2)
    _on_cuda(torch.ones(2, 48, dtype=torch.bfloat16), other.qdata, other.scale)
    assert len(tries) == 2
    assert not products.can_record(other, 2)


@pytest.mark.parametrize("shape", [(0, 20), (2, 0)])
def test_an_empty_result_is_returned_without_the_kernel(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, (count, outputs) = fails_with(ZeroDivisionError("0 rows"), monkeypatch), shape
    weight = torch.ones(outputs, 48, dtype=torch.int8)
    assert _on_cuda(torch.ones(count, 48), weight, torch.ones(outputs, 1)).shape == shape
    assert tries == []
    assert product_module.reads_int8(torch.ones(1))


@pytest.mark.parametrize("transposed", [False, True])
def test_on_meta_it_takes_its_result_and_reads_each_weight_once(transposed: bool) -> None:
    weight = layer(INT8, 64, 96, torch.bfloat16).to("meta").weight
    rows = torch.empty(64, 2, device="meta").t() if transposed else torch.empty(2, 64, device="meta")
    kernels = CudaKernels((8, 6))
    with kernels, Ledger(Trace(), kernels):
        result = int8_product(rows.to(torch.bfloat16), weight)
    assert (result.shape, result.dtype, result.is_contiguous()) == ((2, 96), torch.bfloat16, True)
    counted = work_between((0,) * len(kernels.work.counts), kernels.work.counts).products
    assert counted.launches == 1
    assert counted.flops == 2 * 2 * 64 * 96
    assert counted.moved_bytes == 64 * 96 + 2 * 2 * 64 + 4 * 96 + 2 * 2 * 96


def model_on_meta() -> LanguageModel:
    """The 0.6B model in INT8."""
    model = build_lm("dummy", "acestep-5Hz-lm-0.6B", dtype=torch.bfloat16, materialise="meta")
    quantize_lm(model, Quantization.INT8)
    return model


def step_on_meta(model: LanguageModel, *, triton: bool) -> Work:
    """The work of a guided song's second step."""
    codes = Counted(3, range(150_000, 214_000))
    done: list[Work] = []
    for tokens in (1, 2):
        kernels, trace = CudaKernels((8, 6), triton=triton), Trace()
        ledger = Ledger(trace, kernels)
        device = SimulatedDevice(ledger, TraceBook(trace, 0), dtype=model.dtype, grouped_attention=True)
        job = job_of(codes, range(60), range(40), max_tokens=tokens)
        with kernels, ledger:
            device.begin_stage("think")
            PtBackend(model, device, chooser=FirstAllowed()).rehearse([job])
            device.end_stage()
        done.append(device.work["think"])
    return done[1].plus(done[0], -1)


def test_a_step_moves_hardly_more_than_a_byte_for_each_weight() -> None:
    model = model_on_meta()
    packed, unpacked = step_on_meta(model, triton=True), step_on_meta(model, triton=False)
    weights = sum(weight.numel() for weight in model.module.model.parameters() if is_int8(weight))
    head = 2 * 64_000 * model.module.config.hidden_size
    assert packed.products.flops == unpacked.products.flops
    assert weights + head < packed.products.moved_bytes < 1.01 * (weights + head)
    # In bfloat16 a byte is read and two are written to unpack a weight, and two are read to multiply it.
    saved = unpacked.totals.memory_bytes - packed.totals.memory_bytes
    moved = (packed.products.moved_bytes - head) / weights
    print(f"\n{moved:.2f} bytes for each weight and step; unpacked, {saved / weights:.2f} more")  # noqa: T201
    assert saved == pytest.approx(4 * weights, rel=0.02)
    assert packed.totals.launches < unpacked.totals.launches
