"""Faults on demand: each happens when it is asked for, once or for good, as CUDA's documentation says."""

import pytest

from acestep.units import MIB
from tests.virtual.processes import printed, running, told
from virtual_card.controls import Control, Controls
from virtual_card.machine import RunningMachine

CONTROL_COUNT = "print(cuda.virtualCardControls())"


def test_python_and_the_library_have_the_same_list_of_controls() -> None:
    with running() as machine:
        assert int(printed(machine, CONTROL_COUNT)) == len(Control)


@pytest.mark.parametrize(("nth", "times"), [(1, 1), (3, 1), (2, 3)])
def test_the_nth_allocation_fails_and_so_many_in_a_row(nth: int, times: int) -> None:
    with running() as machine:
        machine.controls.set(Control.FAIL_ALLOCATION_TIMES, times)
        machine.controls.set(Control.FAIL_ALLOCATION, nth)
        out = printed(machine, "print(*[allocate(2 << 20)[0] for _ in range(8)])")
    assert out.split() == ["2" if nth <= n < nth + times else "0" for n in range(1, 9)]


def test_a_launch_that_fails_breaks_its_process_for_good_and_no_other() -> None:
    with running() as machine:
        machine.controls.set(Control.FAIL_LAUNCH, 2)
        out = printed(
            machine,
            "at = allocate(4 << 20)[1]\n"
            "print(launch(0), launch(0), launch(0), allocate(2 << 20)[0], cuda.cudaDeviceSynchronize(), free(at),"
            " cuda.cudaGetLastError(), cuda.cudaGetLastError())",
        )
        assert out == "0 700 700 700 700 700 700 700"
        assert printed(machine, "print(launch(0), allocate(2 << 20)[0])") == "0 0"


def test_a_driver_too_old_has_no_device_for_the_runtime() -> None:
    with running(cuda_version=12040) as machine:
        out = printed(
            machine,
            "n = c_int()\nprint(cuda.cudaGetDeviceCount(byref(n)), n.value, allocate(2 << 20)[0])\n"
            "cuda.cudaGetErrorString.restype = ctypes.c_char_p\nprint(cuda.cudaGetErrorString(35).decode())",
        )
    first, text = out.splitlines()
    assert first == "35 0 35"
    assert text == "CUDA driver version is insufficient for CUDA runtime version"


def test_page_locking_can_be_refused_and_comes_back() -> None:
    code = """
def lock():
    at = c_void_p()
    error = cuda.cudaHostAlloc(byref(at), c_size_t(10000), c_uint(0))
    if not error:
        assert cuda.cudaFreeHost(at) == 0
    return error
buffer = ctypes.create_string_buffer(10000)
def register():
    error = cuda.cudaHostRegister(buffer, c_size_t(10000), c_uint(0))
    if not error:
        assert cuda.cudaHostRegister(buffer, c_size_t(10), c_uint(0)) == 712
        assert cuda.cudaHostUnregister(buffer) == 0 and cuda.cudaHostUnregister(buffer) == 713
    return error
print(lock(), register())
"""
    with running() as machine:
        assert printed(machine, code) == "0 0"
        machine.controls.set(Control.REFUSE_PAGE_LOCKING, 1)
        assert printed(machine, code) == "2 2"


def test_copies_take_the_time_they_are_told() -> None:
    code = """
at = allocate(4 << 20)[1]
host = ctypes.create_string_buffer(1 << 20)
started = time.monotonic()
assert cuda.cudaMemcpy(c_void_p(at), host, c_size_t(1 << 20), 1) == 0
print(time.monotonic() - started)
"""
    with running() as machine:
        machine.controls.set(Control.COPY_BYTES_PER_SECOND, 4 * MIB)
        assert float(printed(machine, code)) >= 0.25


def test_small_copies_carry_values_and_large_ones_zeros() -> None:
    code = """
at = allocate(32 << 20)[1]
def there_and_back(size):
    host = ctypes.create_string_buffer(b"x" * size, size)
    back = ctypes.create_string_buffer(b"y" * size, size)
    assert cuda.cudaMemcpy(c_void_p(at), host, c_size_t(size), 1) == 0
    assert cuda.cudaMemcpy(back, c_void_p(at), c_size_t(size), 2) == 0
    return back.raw[:1], back.raw[-1:]
print(there_and_back(4 << 20), there_and_back((4 << 20) + 1))
"""
    with running() as machine:
        assert printed(machine, code) == r"(b'x', b'x') (b'\x00', b'\x00')"


def test_what_is_not_written_fails_with_its_name_and_only_once_says_so() -> None:
    with running() as machine:
        out, errors = told(machine, "print(*[cuda.cufftXtMakePlanMany() for _ in range(2)], cuda.cusolverDnCreate())")
    assert out.split() == ["16", "16", "9"]
    assert errors.count("virtual card: cufftXtMakePlanMany is not there") == 1
    assert errors.count("virtual card: cusolverDnCreate is not there") == 1


@pytest.mark.parametrize("card", [-1, 8])
def test_a_control_of_a_card_that_cannot_be_is_refused(card: int) -> None:
    with running() as machine, pytest.raises(ValueError, match="cards 0 to 7"):
        machine.controls.set(Control.LOST, 1, card)


def test_what_is_set_is_what_another_opening_of_the_file_reads() -> None:
    with running() as machine, Controls(machine.folder / "controls") as again:
        for value, control in enumerate(Control, 1):
            machine.controls.set(control, value, card=3)
        assert [again.get(control, card=3) for control in Control] == list(range(1, len(Control) + 1))
        assert not any(again.get(control, card=2) for control in Control)


def launches_of(machine: RunningMachine) -> list[str]:
    return printed(machine, "print(launch(0), launch(0, 2048), launch(0, 32, 60000), launch(0, 0))").split()


def test_launches_that_no_card_can_do_are_refused() -> None:
    with running() as machine:
        assert launches_of(machine) == ["0", "9", "1", "9"]
