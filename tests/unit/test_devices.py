"""A device is what its plan says: which card, which attention, and one error where its memory runs out."""

import os

import pytest
import torch

from acestep.devices.open import open_device
from acestep.devices.out_of_memory import one_out_of_memory_error
from acestep.hardware.card import CPU, Card, CardKind
from acestep.limits.capabilities import AMPERE, computes_in_float32, groups_attention, itemsize_of


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 512 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_a_refusal_is_an_out_of_memory_error_with_its_own_words(refusal: RuntimeError) -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught, one_out_of_memory_error():
        raise refusal
    assert str(caught.value) == str(refusal)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("MPS backend out of memory")])
def test_any_other_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, one_out_of_memory_error():
        raise error
    assert caught.value is error


def test_cuda_orders_cards_by_slot_from_the_start() -> None:
    open_device(CPU)
    assert "CUDA_DEVICE_ORDER" in os.environ


def test_without_a_flash_kernel_keys_and_values_are_expanded() -> None:
    card = Card(kind=CardKind.CUDA, name="", capability=AMPERE)
    assert groups_attention(card, windows=False)
    assert not groups_attention(card, windows=True), "no build for Windows has the kernel"
    assert not groups_attention(Card(kind=CardKind.CUDA, name="", capability=(7, 5)), windows=False)


@pytest.mark.parametrize(
    ("kind", "capability", "size"),
    [
        ("cuda", (6, 1), 4),
        ("cuda", (7, 5), 4),
        ("cuda", AMPERE, 2),
        ("rocm", (0, 0), 2),
        ("mps", (0, 0), 4),
        ("cpu", (0, 0), 4),
    ],
)
def test_numbers_have_four_bytes_where_there_is_no_bfloat16(kind: str, capability: tuple[int, int], size: int) -> None:
    card = Card(kind=CardKind(kind), name="", capability=capability)
    assert itemsize_of(card) == size
    assert computes_in_float32(card) == (kind == "cuda" and size == 4)
