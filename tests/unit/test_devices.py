"""Every backend runs out of memory with one error, and no other error is taken for it."""

import pytest
import torch

from acestep.devices.out_of_memory import one_out_of_memory_error


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 512 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
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
