"""Which cards a process sees: by number, uuid and slice, in CUDA's order or by slot."""

import pytest

from tests.virtual.processes import printed, running
from virtual_card.card import GIB, VirtualCard
from virtual_card.machine import VirtualMachine

CARDS = (VirtualCard(board_bytes=4 * GIB), VirtualCard(capability=(9, 0), board_bytes=16 * GIB))
SEEN = """
n = c_int()
cuda.cudaGetDeviceCount(byref(n))
totals = []
for device in range(n.value):
    assert cuda.cudaSetDevice(device) == 0
    totals.append(info()[1] >> 30)
print(*totals)
"""


@pytest.mark.parametrize(
    ("environ", "sizes"),
    [
        ({}, "15 3"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "3 15"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}, "15"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1, 0"}, "15 3"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,7,1"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "GPU-76697274-7561-6c00-0000-000000000901"}, "15"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-76697274-7561-6c00-0000-00000000086"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-0000"}, ""),
    ],
)
def test_the_environment_chooses_the_cards(environ: dict[str, str], sizes: str) -> None:
    with running(cards=CARDS) as machine:
        assert printed(machine, SEEN, **environ) == sizes


def test_two_cards_have_books_of_their_own() -> None:
    with running(cards=CARDS) as machine:
        out = printed(
            machine,
            """
cuda.cudaSetDevice(1)
assert allocate(1 << 30)[0] == 0
one = info()
cuda.cudaSetDevice(0)
two = info()
print(one[1] - one[0] >> 20, two[1] - two[0] >> 20)
""",
        )
    assert out == "300 1324" or out == "1324 300"


def test_each_thread_has_a_device_of_its_own() -> None:
    with running(cards=CARDS) as machine:
        out = printed(
            machine,
            """
cuda.cudaSetDevice(1)
def ask():
    device = c_int()
    cuda.cudaGetDevice(byref(device))
    print(device.value)
thread = threading.Thread(target=ask)
thread.start()
thread.join()
ask()
""",
        )
    assert out.split() == ["0", "1"]


def test_a_machine_without_cards_has_none() -> None:
    with running(cards=()) as machine:
        assert printed(machine, "print(allocate(2 << 20)[0], cuda.cuInit(0))") == "100 100"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"capability": (5, 0)}, "capabilities"),
        ({"board_bytes": 100}, "the driver keeps"),
        ({"slice_bytes": 9 * GIB}, "does not fit"),
        ({"context_bytes": -1}, "context_bytes must be 0 or more"),
    ],
)
def test_cards_that_there_cannot_be_are_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        VirtualCard(**fields)  # type: ignore[arg-type]


def test_a_machine_has_at_most_eight_cards() -> None:
    with pytest.raises(ValueError, match="at most 8"):
        VirtualMachine(cards=(VirtualCard(),) * 9)
