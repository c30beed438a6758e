"""On a real card: the device counts what was taken, its streams keep their order, and a cap limits every allocation."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from acestep.devices.accelerator import CudaDevice
from acestep.units import GIB, MIB
from calibrate.probes.ballast import GRAIN_BYTES, Ballast, CudaStore
from calibrate.probes.simulated.history import replay_history
from calibrate.probes.simulated.recorded import load_history
from tests.on_a_card import require_order

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
CYCLES = 200_000_000
"""A tenth of a second on most cards: long enough for a copy that does not wait to come first."""


@contextmanager
def capped(cap_bytes: int) -> Iterator[CudaDevice]:
    try:
        yield CudaDevice(cap_bytes)
    finally:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)


def taken_by_a_child(*arguments: object) -> int:
    """The bytes that a process of its own could get hold of before the card said no."""
    command = [sys.executable, "-m", "tests.gpu.greedy", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    return int(done.stdout)


def test_a_stage_s_peaks_are_what_was_taken_in_it() -> None:
    device = CudaDevice()
    device.empty_cache()
    before = torch.empty(100 * MIB, dtype=torch.uint8, device=device.torch_device)
    device.begin_stage("denoise")
    within = torch.empty(512 * MIB, dtype=torch.uint8, device=device.torch_device)
    del within
    allocated, reserved = device.end_stage()
    assert allocated - device.allocated_bytes() == 512 * MIB
    assert reserved >= allocated
    del before


def test_free_memory_counts_what_is_cached_and_never_exceeds_the_cap() -> None:
    with capped(2 * GIB) as device:
        free = device.free_bytes()
        held = torch.empty(GIB, dtype=torch.uint8, device=device.torch_device)
        assert free - device.free_bytes() == pytest.approx(GIB, abs=4 * MIB)
        del held
        assert device.free_bytes() == pytest.approx(free, abs=4 * MIB), "cached, and so still to be had"
        assert device.free_bytes() <= 2 * GIB


@pytest.mark.parametrize("piece", [GIB // 2, 64 * MIB, 3 * MIB, 600_000])
def test_a_capped_child_cannot_hold_more_in_pieces_of_any_size(piece: int) -> None:
    cap = GIB + 7 * MIB
    assert cap - piece - 20 * MIB <= taken_by_a_child("fraction", piece, cap) <= cap


def test_ballast_binds_every_process_and_its_free_memory_reads_as_on_the_small_card() -> None:
    torch.cuda.synchronize()
    ballast = Ballast(CudaStore())
    small = 3 * GIB
    filled = ballast.leave_free(small)
    try:
        assert small - GRAIN_BYTES <= filled.free_bytes <= small
        assert torch.cuda.mem_get_info()[0] <= small
        assert taken_by_a_child("none", 64 * MIB, 0) < small
    finally:
        ballast.leave_free(1 << 62)


@pytest.mark.values
def test_copies_beside_computation_keep_their_order() -> None:
    require_order(CudaDevice(), lambda: torch.cuda._sleep(CYCLES))


@pytest.mark.parametrize("model", ["tiny", "dummy"])
def test_the_allocator_s_own_history_is_done_again_to_the_byte(model: str, tmp_path: Path) -> None:
    """In a process of its own: a history has to begin before anything is on the card."""
    path = tmp_path / "history.json.gz"
    command = [sys.executable, "-m", "tools.record_history", "--model", model, "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert replay_history(load_history(path)).allocations > 100
