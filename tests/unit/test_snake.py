"""Snake, fused and not: which form is used where, and what each takes of a card."""

import logging

import pytest
import torch

from acestep.checkpoints.build import build
from acestep.devices.cpu import CpuDevice
from acestep.dit import snake as snakes
from acestep.dit.snake import Snakes, fuses
from acestep.dit.vae_decode import TileDecoder, fold_weight_norm
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.trace import Trace, stage_usage
from calibrate.probes.simulated.work_counter import work_between
from calibrate.probes.work import Work

MOST_OF_THE_BYTES = 0.40
"""What the fused form moves, of what PyTorch's own operations move."""


class WithTriton(CpuDevice):
    """A device that should run the kernel, and has none: the operator exists only for CUDA."""

    has_triton = True


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    snakes._compiles.cache_clear()


def test_a_kernel_that_cannot_be_compiled_is_told_once_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [fuses(WithTriton(), torch.float32) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "decoding takes longer" in caplog.text


@pytest.mark.parametrize(
    ("problem", "raised"),
    [
        (RuntimeError("Triton Error [CUDA]: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), RuntimeError),
    ],
)
def test_a_full_card_and_a_broken_one_are_no_missing_compiler(
    problem: Exception, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise problem

    monkeypatch.setattr(torch.ops.acestep, "snake_", fails)
    for _ in range(2):
        with pytest.raises(raised, match="Triton Error"):
            fuses(WithTriton(), torch.float32)


def test_devices_without_triton_use_pytorch_s_operations() -> None:
    assert not fuses(CpuDevice(), torch.float32)


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
