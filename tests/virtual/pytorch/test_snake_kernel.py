"""Our Triton kernel: what it computes, by Triton's interpreter, and that each card takes it and only its result."""

import importlib
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from acestep.checkpoints.libraries import Snake1d
from acestep.devices.accelerator import CudaDevice
from acestep.dit.snake import Scales, Snakes, _kernel
from tests.virtual.processes import CAPABILITIES

snake_kernel: ModuleType = pytest.importorskip("acestep.dit.snake_kernel", reason="Triton is not installed here")

SHAPES = ((2, 6, 1500), (1, 128, 40), (1, 1, 1024), (1, 5, 1))
"""Batch, channels, samples: more and less than one program computes, and the least."""


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module with kernels that Triton runs on the CPU."""
    with monkeypatch.context() as patched:
        patched.setenv("TRITON_INTERPRET", "1")
        yield importlib.reload(snake_kernel)
    importlib.reload(snake_kernel)


def drawn(shape: tuple[int, int, int], dtype: torch.dtype, *, channels_last: bool) -> tuple[Tensor, Snake1d]:
    generator = torch.Generator().manual_seed(shape[1])
    snake = Snake1d(shape[1])
    with torch.no_grad():
        snake.alpha.normal_(generator=generator)
        snake.beta.normal_(generator=generator)
    hidden = torch.randn(shape, generator=generator).mul_(3).to(dtype)
    laid = hidden.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else hidden
    return laid, snake.to(dtype)


def scales_of(snake: Snake1d) -> Scales:
    return Snakes(snake, fused=True)._scales[snake]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_it_computes_in_float32_what_pytorch_computes_with_the_same_sine(
    interpreted: ModuleType, shape: tuple[int, int, int], channels_last: bool
) -> None:
    hidden, snake = drawn(shape, torch.float32, channels_last=channels_last)
    alpha, inverse_beta = scales_of(snake)
    sine = torch.from_numpy(np.sin((alpha * hidden).numpy()))
    result, same = torch.empty_like(hidden), hidden.clone()
    interpreted.launch(result, hidden, alpha, inverse_beta)
    interpreted.launch(same, same, alpha, inverse_beta)
    assert torch.equal(result, hidden + sine * sine * inverse_beta)
    assert torch.equal(same, result)
    library = snake(hidden)
    # One unit in the last place, by which the sines of NumPy and PyTorch differ.
    assert torch.allclose(result, library, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_in_a_short_type_it_is_nearer_to_the_true_values_than_pytorch_s_operations(
    interpreted: ModuleType, dtype: torch.dtype
) -> None:
    hidden, snake = drawn((1, 128, 200), dtype, channels_last=False)
    true = Snakes(snake.double(), fused=False).new(hidden.double(), snake)
    snake.to(dtype)
    result = torch.empty_like(hidden)
    interpreted.launch(result, hidden, *scales_of(snake))
    apart = Snakes(snake, fused=False).new(hidden, snake)
    # The interpreter cuts bfloat16 off where a card rounds, which makes its errors twice as large.
    assert (result - true).abs().mean() < (apart - true).abs().mean()


def test_nothing_is_computed_for_another_layout() -> None:
    hidden = torch.full((4, 6, 50), 0.5)[:, ::2]
    one = torch.ones(1, 3, 1)
    assert not snake_kernel.launch(hidden, hidden, one, one)
    assert not snake_kernel.launch(torch.zeros(4, 3, 50), hidden, one, one)
    assert (hidden == 0.5).all()


@pytest.mark.parametrize("index", range(len(CAPABILITIES)))
@torch.no_grad()
def test_every_card_loads_it_and_it_takes_nothing_but_a_new_result(index: int) -> None:
    device = CudaDevice(index=index)
    assert device.has_triton
    place = device.torch_device
    for dtype in (torch.float32, torch.float16, torch.bfloat16)[: 3 if CAPABILITIES[index] >= (8, 0) else 2]:
        snake = Snake1d(64).to(place, dtype)
        snakes = Snakes(snake, fused=True)
        for channels_last in (False, True):
            hidden = torch.empty(1, 64, 5000, device=place, dtype=dtype)
            if channels_last:
                hidden = hidden.transpose(1, 2).contiguous().transpose(1, 2)
            size = hidden.numel() * dtype.itemsize
            before = torch.cuda.memory_allocated(place)
            torch.cuda.reset_peak_memory_stats(place)
            assert snakes.in_place(hidden, snake).data_ptr() == hidden.data_ptr()
            assert torch.cuda.max_memory_allocated(place) == before
            result = snakes.new(hidden, snake)
            assert result.stride() == hidden.stride()
            assert size <= torch.cuda.max_memory_allocated(place) - before < size + 1024
            del result
    assert not _kernel.failed
