"""Snake, fused and not: which form is used where, and what each takes of a card."""

import logging
import sys
from types import ModuleType

import pytest
import torch

from acestep.checkpoints.build import build
from acestep.checkpoints.libraries import Snake1d
from acestep.dit import snake as snake_module
from acestep.dit.snake import Snakes, _in_place_on_cuda, _Kernel, _new_on_cuda
from acestep.dit.vae_decode import TileDecoder, fold_weight_norm
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import Trace, stage_usage
from calibrate.probes.simulated.work_counter import work_between
from calibrate.probes.work import Work
from tests import failing_kernel

MOST_OF_THE_BYTES = 0.40
"""What the fused form moves, of what PyTorch's own operations move."""


@pytest.fixture(autouse=True)
def _untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snake_module, "_kernel", _Kernel())


def fails_with(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a kernel that fails in the place of ours, and return its tries."""
    return failing_kernel.fails_with(problem, "acestep.dit.snake_kernel", "launch", monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_without_a_compiler_pytorch_computes_and_the_log_says_it_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = fails_with(RuntimeError("Failed to find C compiler"), monkeypatch)
    layer = Snake1d(3).to(dtype)
    hidden = torch.linspace(-3, 3, 30).reshape(1, 3, 10).to(dtype)
    alpha, inverse_beta = Snakes(layer, fused=True)._scales[layer]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(_new_on_cuda(hidden, alpha, inverse_beta), layer(hidden))
        same = hidden.clone()
        assert _in_place_on_cuda(same, alpha, inverse_beta) is same
    assert torch.equal(same, layer(hidden))
    assert len(tries) == len(caplog.records) == 1
    assert "Failed to find C compiler" in caplog.text


@torch.no_grad()
def test_a_layout_that_the_kernel_cannot_read_is_computed_by_pytorch_and_the_kernel_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []
    kernels = ModuleType("acestep.dit.snake_kernel")
    kernels.launch = lambda *_: bool(tries.append(1))  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "acestep.dit.snake_kernel", kernels)
    layer, hidden = Snake1d(3), torch.linspace(-3, 3, 60).reshape(1, 6, 10)[:, ::2]
    scales = Snakes(layer, fused=True)._scales[layer]
    for _ in range(2):
        assert torch.equal(_new_on_cuda(hidden, *scales), layer(hidden))
    assert (len(tries), caplog.records) == (2, [])


@pytest.mark.parametrize("problem", ["out of memory", "an illegal memory access was encountered"])
def test_a_full_card_and_a_broken_one_are_no_missing_compiler(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = fails_with(RuntimeError(f"Triton Error [CUDA]: {problem}"), monkeypatch)
    one = torch.ones(1, 1, 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=problem):
            _new_on_cuda(one, one, one)
    assert len(tries) == 2, "it is tried again"


def decoded_on_meta(*, fused: bool, frames: int = 20) -> tuple[Work, int]:
    """The work of decoding one tile by a tiny model, and the bytes at its peak."""
    vae = build("tiny", dtype=torch.bfloat16, materialise="meta").vae
    fold_weight_norm(vae)
    trace, kernels = Trace(), CudaKernels((8, 6))
    latents = torch.empty(1, vae.decoder.conv1.in_channels, frames, dtype=torch.bfloat16, device="meta")
    with kernels, Ledger(trace, kernels), torch.no_grad():
        trace.begin_stage("decode")
        decoder = TileDecoder(vae.decoder, fused=fused)
        before = kernels.work.counts
        decoder(latents)
        work = work_between(before, kernels.work.counts)
        trace.end_stage()
    return work, stage_usage(trace)[0].peak_bytes


def test_fused_it_moves_fewer_bytes_in_fewer_kernels_and_takes_no_more_memory() -> None:
    (fused, fused_peak), (apart, apart_peak) = decoded_on_meta(fused=True), decoded_on_meta(fused=False)
    assert fused.convolutions == apart.convolutions
    assert fused.totals.memory_bytes <= MOST_OF_THE_BYTES * apart.totals.memory_bytes
    assert fused.totals.launches < apart.totals.launches / 2
    assert 0 < fused_peak <= apart_peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_both_forms_of_each_are_the_library_s(dtype: torch.dtype) -> None:
    vae = build("tiny", dtype=dtype).vae
    for unit in vae.decoder.block:
        channels = unit.snake1.alpha.shape[1]
        unit.snake1.alpha.uniform_(-1, 1)
        hidden = torch.randn(1, channels, 50, generator=torch.Generator().manual_seed(channels)).to(dtype)
        ours = Snakes(vae.decoder, fused=False)
        library = unit.snake1(hidden)
        before = hidden.clone()
        assert torch.equal(ours.new(hidden, unit.snake1), library)
        assert torch.equal(hidden, before)
        assert ours.in_place(hidden, unit.snake1) is hidden
        assert torch.equal(hidden, library)
