"""NVML on virtual machines, asked by the Python binding that people have: what it says, and how it fails."""

import pytest

from tests.virtual.processes import printed, running
from virtual_card.card import GIB, MIB, Nvml, System, VirtualCard
from virtual_card.controls import Control

ASK = "import pynvml as nvml\nnvml.nvmlInit()\nh = nvml.nvmlDeviceGetHandleByIndex(0)\n"
MEMORY = "m = nvml.nvmlDeviceGetMemoryInfo(h, version=nvml.nvmlMemory_v2)\n"


def test_every_name_says_that_the_card_is_virtual() -> None:
    with running(cards=(VirtualCard(capability=(8, 9), board_bytes=12 * GIB),)) as machine:
        out = printed(
            machine,
            ASK
            + "print(nvml.nvmlDeviceGetName(h), nvml.nvmlDeviceGetUUID(h), nvml.nvmlSystemGetDriverVersion(), sep=';')",
        )
    name, uuid, driver = out.split(";")
    assert name.startswith("Virtual 12 GiB")
    assert bytes.fromhex(uuid.removeprefix("GPU-").replace("-", ""))[:7] == b"virtual"
    assert driver.startswith("virtual")


def test_a_real_name_is_refused() -> None:
    with pytest.raises(ValueError, match='starts with "Virtual"'):
        VirtualCard(name="NVIDIA GeForce RTX 3070")


def test_both_versions_of_its_memory_add_up_and_the_first_counts_the_reserve_as_used() -> None:
    with running(cards=(VirtualCard(board_bytes=4 * GIB, others_bytes=100 * MIB),)) as machine:
        out = printed(
            machine,
            ASK
            + MEMORY
            + "o = nvml.nvmlDeviceGetMemoryInfo(h)\n"
            + "print(m.total, m.reserved, m.used, m.free, o.total, o.used, o.free)",
        )
    total, reserved, used, free, old_total, old_used, old_free = map(int, out.split())
    assert (total, reserved, used) == (4 * GIB, 250 * MIB, 100 * MIB)
    assert free == total - reserved - used
    assert (old_total, old_used, old_free) == (total, used + reserved, free)


def test_it_lists_the_processes_with_their_bytes_and_they_add_up_to_what_is_used() -> None:
    with running(cards=(VirtualCard(board_bytes=4 * GIB),)) as machine:
        out = printed(
            machine,
            ASK
            + "assert allocate(64 << 20)[0] == 0\n"
            + MEMORY
            + "p = nvml.nvmlDeviceGetComputeRunningProcesses(h)\n"
            + "print(len(p), p[0].pid == os.getpid(), p[0].usedGpuMemory == m.used, m.used)",
        )
    assert out == f"1 True True {364 * MIB}"


def test_windows_does_not_tell_a_process_s_bytes() -> None:
    with running(cards=(VirtualCard(),), system=System.WINDOWS) as machine:
        out = printed(
            machine,
            ASK + "allocate(2 << 20)\nprint([p.usedGpuMemory for p in nvml.nvmlDeviceGetComputeRunningProcesses(h)])",
        )
    assert out == "[None]"


def test_a_board_that_is_cut_shows_its_slice_and_cuda_sees_only_that() -> None:
    with running(cards=(VirtualCard(capability=(8, 0), board_bytes=40 * GIB, slice_bytes=5 * GIB),)) as machine:
        out = printed(
            machine,
            ASK
            + """
s = nvml.nvmlDeviceGetMigDeviceHandleByIndex(h, 0)
uuid = nvml.nvmlDeviceGetUUID(s)
again = nvml.nvmlDeviceGetHandleByUUID(uuid)
board = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(again)
print(nvml.nvmlDeviceGetMigMode(h)[0], uuid[:4], nvml.nvmlDeviceGetMemoryInfo(again).total,
      nvml.nvmlDeviceGetUUID(board)[:4], info()[1], nvml.nvmlDeviceGetMemoryInfo(again).used)
""",
        )
    assert out == f"1 MIG- {5 * GIB} GPU- {5 * GIB} {300 * MIB}"


def test_a_card_that_shares_the_main_memory_has_no_memory_of_its_own_to_tell() -> None:
    with running(cards=(VirtualCard(capability=(12, 1), board_bytes=120 * GIB, unified=True),)) as machine:
        out = printed(
            machine,
            ASK
            + """
try:
    nvml.nvmlDeviceGetMemoryInfo(h)
except nvml.NVMLError_NotSupported:
    print("not told", info()[1] > 100 << 30)
""",
        )
    assert out == "not told True"


@pytest.mark.parametrize(
    ("how", "problem"),
    [(Nvml.MISSING, "LibraryNotFound"), (Nvml.MISMATCHED, "LibRmVersionMismatch"), (Nvml.MUTE, "NotSupported")],
)
def test_a_library_that_does_not_work_raises_what_the_real_one_does_and_cuda_works(how: Nvml, problem: str) -> None:
    with running(nvml=how) as machine:
        out = printed(
            machine,
            "import pynvml as nvml\ntry:\n    nvml.nvmlInit()\n    h = nvml.nvmlDeviceGetHandleByIndex(0)\n"
            "    nvml.nvmlDeviceGetMemoryInfo(h)\n"
            "except nvml.NVMLError as error:\n    print(type(error).__name__, allocate(2 << 20)[0])",
        )
    assert out == f"NVMLError_{problem} 0"


def test_a_lost_card_is_told_as_lost_to_who_had_it_and_gone_for_who_comes() -> None:
    with running() as machine:
        machine.controls.set(Control.LOSE_AT_LAUNCH, 3)
        out = printed(
            machine,
            ASK
            + """
codes = [launch(0) for _ in range(4)]
try:
    nvml.nvmlDeviceGetMemoryInfo(h)
except nvml.NVMLError_GpuIsLost:
    print(*codes, allocate(2 << 20)[0])
""",
        )
        assert out == "0 0 719 719 719"
        assert printed(machine, "print(allocate(2 << 20)[0])") == "100"
