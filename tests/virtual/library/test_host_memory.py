"""What a large copy from the card leaves on the host: zeros where it was asked for, whatever memory that is."""

import pytest

from tests.virtual.processes import printed, running

MAPPED = """
import mmap, tempfile
SIZE, PAGE, SKIP = 16 * MIB, mmap.PAGESIZE, 100
at = allocate(SIZE)[1]
file = tempfile.TemporaryFile()
file.write(b"x" * SIZE)
file.flush()
mapped = {
    "anonymous": lambda: mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE),
    "shared": lambda: mmap.mmap(-1, SIZE, flags=mmap.MAP_SHARED),
    "file": lambda: mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE),
}[KIND]()
begin = ctypes.addressof(c_char.from_buffer(mapped))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * PAGE
def from_card(skip):
    assert cuda.cudaMemcpy(c_void_p(begin + skip), c_void_p(at), c_size_t(SIZE - 2 * skip), 2) == 0
"""


@pytest.mark.parametrize("kind", ["anonymous", "shared", "file"])
def test_it_is_zero_and_what_lies_beside_it_is_as_before(kind: str) -> None:
    code = """
mapped[:] = b"x" * SIZE
from_card(SKIP)
print(mapped[:SKIP] + mapped[-SKIP:] == b"x" * 2 * SKIP, mapped[SKIP:-SKIP].count(0) == SIZE - 2 * SKIP)
"""
    with running() as machine:
        assert printed(machine, f"KIND = {kind!r}{MAPPED}{code}") == "True True"


def test_memory_that_nothing_has_written_takes_none_afterwards() -> None:
    code = """
from_card(0)
before = resident()
mapped = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE)
begin = ctypes.addressof(c_char.from_buffer(mapped))
from_card(SKIP)
print(resident() - before < MIB)
"""
    with running() as machine:
        assert printed(machine, f"KIND = 'shared'{MAPPED}{code}") == "True"
