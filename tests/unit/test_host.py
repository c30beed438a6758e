"""Main memory: what the machine has, and less where control groups allow less."""

import os
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from acestep.devices.accelerator import Accelerator
from acestep.devices.cpu import CpuDevice
from acestep.hardware.cgroups import memory_limits
from acestep.hardware.host import LOCK_RESERVE_BYTES, HostMemory, LockedMemory, host_memory, lockable_bytes
from acestep.units import GIB

V1_NONE = 9223372036854771712


class Machine:
    """A machine of 16 GiB, of which 12 are free, with swap of its own."""

    def __init__(self, swap_gib: float = 0, *, swap_error: Exception | None = None) -> None:
        self.swap_gib = swap_gib
        self.swap_error = swap_error

    def virtual_memory(self) -> SimpleNamespace:
        return SimpleNamespace(total=16 * GIB, available=12 * GIB)

    def swap_memory(self) -> SimpleNamespace:
        if self.swap_error:
            raise self.swap_error
        return SimpleNamespace(free=int(self.swap_gib * GIB))


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return root


def v2_group(folder: str, limit: object, *, used: int = 0, cache: int = 0, **more: object) -> dict[str, object]:
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": used + cache,
        f"{folder}/memory.stat": f"anon {used}\ninactive_file {cache // 2}\nactive_file {cache - cache // 2}",
        **{f"{folder}/{name.replace('_', '.')}": value for name, value in more.items()},
    }


def v1_group(folder: str, limit: object, *, used: int = 0, cache: int = 0, **more: object) -> dict[str, object]:
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used + cache,
        f"{folder}/memory.stat": f"cache {cache}\ntotal_inactive_file {cache}\ntotal_active_file 0",
        **{f"{folder}/{name}": value for name, value in more.items()},
    }


def seen(root: Path, *, swap_gib: float = 0) -> HostMemory:
    return host_memory(root=root, machine=Machine(swap_gib), system="linux")


@pytest.mark.parametrize("system", ["linux", "win32", "darwin", "freebsd14"])
def test_without_groups_the_machine_counts_on_every_system(tmp_path: Path, system: str) -> None:
    memory = host_memory(root=tmp_path, machine=Machine(2), system=system)
    assert (memory.total_bytes, memory.available_bytes, memory.limited_by) == (16 * GIB, 12 * GIB, None)
    assert memory.swap_bytes == (4 * GIB if system == "darwin" else 2 * GIB)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_do_not_read_linux_files(tmp_path: Path, system: str) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/", **v2_group("sys/fs/cgroup", GIB)})
    assert host_memory(root=tmp_path, machine=Machine(), system=system).total_bytes == 16 * GIB


def test_a_v2_container_sees_its_own_limit_at_the_top(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/", **v2_group("sys/fs/cgroup", 2 * GIB, used=GIB, cache=GIB // 2)})
    memory = seen(tmp_path)
    assert (memory.total_bytes, memory.available_bytes) == (2 * GIB, GIB)
    assert memory.limited_by == "/sys/fs/cgroup"


def test_a_v1_container_sees_its_own_limit_at_the_top_though_its_path_is_the_hosts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "12:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab",
            "proc/self/mountinfo": "7 1 0:9 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            **v1_group("sys/fs/cgroup/memory", 2 * GIB, used=GIB, cache=GIB // 4),
        },
    )
    assert (seen(tmp_path).total_bytes, seen(tmp_path).available_bytes) == (2 * GIB, GIB)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("smallest", [0, 1, 2])
def test_the_smallest_limit_along_the_way_counts(tmp_path: Path, version: int, smallest: int) -> None:
    top = "sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory"
    group, line = (v2_group, "0::/a/b") if version == 2 else (v1_group, "4:memory:/a/b")
    write(tmp_path, {"proc/self/cgroup": line})
    for depth, folder in enumerate((top, f"{top}/a", f"{top}/a/b")):
        write(tmp_path, group(folder, (3 if depth == smallest else 5) * GIB))
    # A group beside the way is another's.
    write(tmp_path, group(f"{top}/a/c", GIB))
    assert seen(tmp_path).total_bytes == 3 * GIB


def test_a_full_group_around_an_empty_one_leaves_nothing(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            **v2_group("sys/fs/cgroup/a", 8 * GIB, used=9 * GIB),
            **v2_group("sys/fs/cgroup/a/b", 4 * GIB),
        },
    )
    assert (seen(tmp_path).total_bytes, seen(tmp_path).available_bytes) == (4 * GIB, 0)


@pytest.mark.parametrize("limit", ["max", V1_NONE, 64 * GIB])
def test_a_limit_above_the_machine_is_none(tmp_path: Path, limit: object) -> None:
    for number, (group, top) in enumerate(((v2_group, "sys/fs/cgroup"), (v1_group, "sys/fs/cgroup/memory"))):
        root = write(tmp_path / str(number), {"proc/self/cgroup": "0::/\n3:memory:/", **group(top, limit)})
        assert seen(root) == HostMemory(total_bytes=16 * GIB, available_bytes=12 * GIB)


@pytest.mark.parametrize(("limit", "high", "gib"), [("max", 2 * GIB, 2), (4 * GIB, 2 * GIB, 2), (2 * GIB, "max", 2)])
def test_a_group_that_is_slowed_down_above_a_size_has_no_more(tmp_path: Path, limit: object, high: object, gib) -> None:
    files = v2_group("sys/fs/cgroup/a", limit, memory_high=high)
    memory = seen(write(tmp_path, {"proc/self/cgroup": "0::/a", **files}))
    assert (memory.total_bytes, memory.available_bytes) == (gib * GIB, gib * GIB)


def test_v1_tells_of_limits_around_that_are_not_shown(tmp_path: Path) -> None:
    files = v1_group("sys/fs/cgroup/memory", V1_NONE)
    files["sys/fs/cgroup/memory/memory.stat"] = f"hierarchical_memory_limit {3 * GIB}\ntotal_inactive_file 0"
    assert seen(write(tmp_path, {"proc/self/cgroup": "3:memory:/x", **files})).total_bytes == 3 * GIB


def test_a_mount_elsewhere_and_with_a_space_in_its_name_is_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/one",
            "proc/self/mountinfo": r"9 1 0:2 / /mnt/my\040groups rw shared:4 - cgroup2 none rw,nsdelegate",
            **v2_group("mnt/my groups/user.slice", 3 * GIB),
        },
    )
    assert seen(tmp_path).limited_by == "/mnt/my groups/user.slice"


def test_swap_counts_as_far_as_the_group_may_use_it(tmp_path: Path) -> None:
    for number, (files, expected_gib) in enumerate(
        (
            (v2_group("sys/fs/cgroup", 2 * GIB), 6),
            (v2_group("sys/fs/cgroup", 2 * GIB, memory_swap_max=0), 0),
            (v2_group("sys/fs/cgroup", 2 * GIB, memory_swap_max=3 * GIB), 3),
            (v1_group("sys/fs/cgroup/memory", 2 * GIB, **{"memory.memsw.limit_in_bytes": 3 * GIB}), 1),
            (v1_group("sys/fs/cgroup/memory", 2 * GIB, **{"memory.memsw.limit_in_bytes": V1_NONE}), 6),
        )
    ):
        root = write(tmp_path / str(number), {"proc/self/cgroup": "0::/\n3:memory:/", **files})
        assert seen(root, swap_gib=6).swap_bytes == expected_gib * GIB, number


@pytest.mark.parametrize("error", [OSError("no /proc"), RuntimeError("no sysinfo")])
def test_a_system_that_does_not_tell_of_swap_has_none(tmp_path: Path, error: Exception) -> None:
    assert host_memory(root=tmp_path, machine=Machine(swap_error=error), system="linux").swap_bytes == 0


JUNK = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"max", b"-1", b"1e9", b"99999999999999999999999", b"0::", b"4:memory:..", "²".encode()]),
)


@given(st.dictionaries(st.sampled_from(["limit", "usage", "stat", "group", "mounts", "swap"]), JUNK))
def test_garbage_never_raises_and_never_adds_memory(tmp_path_factory: pytest.TempPathFactory, junk) -> None:
    names = {
        "limit": "sys/fs/cgroup/a/memory.max",
        "usage": "sys/fs/cgroup/a/memory.current",
        "stat": "sys/fs/cgroup/a/memory.stat",
        "swap": "sys/fs/cgroup/a/memory.swap.max",
        "group": "proc/self/cgroup",
        "mounts": "proc/self/mountinfo",
    }
    root = tmp_path_factory.mktemp("groups")
    write(root, {"proc/self/cgroup": "0::/a", **v2_group("sys/fs/cgroup/a", 2 * GIB, used=GIB)})
    write(root, {names[name]: content for name, content in junk.items()})
    memory = seen(root, swap_gib=1)
    assert 0 <= memory.available_bytes <= memory.total_bytes <= 16 * GIB
    assert 0 <= memory.swap_bytes <= GIB


@given(limit=st.integers(0, 20 * GIB), used=st.integers(0, 20 * GIB), cache=st.integers(0, 20 * GIB))
def test_file_cache_is_free_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, limit, used, cache) -> None:
    files = {"proc/self/cgroup": "0::/", **v2_group("sys/fs/cgroup", limit, used=used, cache=cache)}
    memory = seen(write(tmp_path_factory.mktemp("groups"), files))
    assert memory.total_bytes == min(limit, 16 * GIB)
    assert memory.available_bytes == min(max(0, limit - used), 12 * GIB)


def test_this_machine_is_described_as_the_system_does() -> None:
    memory = host_memory()
    assert 0 < memory.available_bytes <= memory.total_bytes <= psutil.virtual_memory().total
    assert all(limit.limit_bytes > 0 for limit in memory_limits())


def test_the_cpu_has_what_the_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acestep.devices.cpu.host_memory", lambda: HostMemory(total_bytes=9, available_bytes=7))
    assert CpuDevice().free_bytes() == 7


class LockingHost:
    """Stands for PyTorch's page-locked memory: blocks of powers of two, kept when freed, from a limited main memory."""

    def __init__(self, free: int, patch: pytest.MonkeyPatch) -> None:
        self.free = free
        self.kept: Counter[int] = Counter()
        self.count = LockedMemory()
        self.card = Accelerator(torch.cuda, torch.device("cpu"), torch.float32, grouped=True, workspace=0)
        self.real = torch.empty
        patch.setattr(torch, "empty", self.empty)
        patch.setattr("acestep.hardware.host.host_memory", self.memory)
        for place in ("acestep.devices.accelerator", "acestep.hardware.host"):
            patch.setattr(f"{place}.LOCKED", self.count)

    def memory(self) -> HostMemory:
        return HostMemory(total_bytes=16 * GIB, available_bytes=LOCK_RESERVE_BYTES + self.free)

    def empty(self, n_bytes: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        block = 1 << max(0, n_bytes - 1).bit_length()
        if self.kept[block]:
            self.kept[block] -= 1
        else:
            self.free -= block
        assert self.free >= 0, "more was locked than the reserve allows"
        given = self.real(n_bytes, dtype=dtype)
        weakref.finalize(given.untyped_storage(), self.kept.update, [block])
        return given


def locked_bytes(pieces: Sequence[torch.Tensor]) -> int:
    return sum(piece.untyped_storage().nbytes() for piece in pieces)


@given(
    free=st.integers(0, 4096),
    steps=st.lists(st.tuples(st.integers(1, 2048), st.integers(0, 3)), max_size=30),
)
def test_what_can_be_locked_is_what_is_granted_after_loads_and_frees_in_any_order(
    free: int, steps: list[tuple[int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        host = LockingHost(free, patch)
        live: list[torch.Tensor] = []
        for n_bytes, freed in steps:
            piece = host.card.pinned(n_bytes)
            if piece is not None:
                assert piece.nbytes == n_bytes
                # A view alone keeps the block in use.
                live.append(piece[: n_bytes // 2])
            del piece
            del live[:freed]
            assert locked_bytes(live) <= lockable_bytes() == free
        # All that it says is granted, largest blocks first; and not a byte more.
        promised = lockable_bytes()
        live.clear()
        for size in (1 << bits for bits in range(12, -1, -1)):
            while (piece := host.card.pinned(size)) is not None:
                live.append(piece)
        assert locked_bytes(live) == promised


def test_the_same_load_again_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    host = LockingHost(8192, monkeypatch)
    for _ in range(5):
        load = [host.card.pinned(size) for size in (900, 1024, 100)]
        assert all(piece is not None for piece in load)
        free = host.free
        del load
    host.free = 0
    # With no new memory, a smaller request takes a larger block that is kept.
    assert host.card.pinned(512) is not None
    assert free == 8192 - host.count.held_bytes == 8192 - (1024 + 1024 + 128)


def test_what_the_system_refuses_to_lock_is_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    host = LockingHost(8192, monkeypatch)
    held = host.card.pinned(1024)

    def refused(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("cannot lock")

    with monkeypatch.context() as limited:
        limited.setattr(torch, "empty", refused)
        assert host.card.pinned(2048) is None
    assert lockable_bytes() == 1024
    assert host.card.pinned(2048) is None
    del held
    assert host.card.pinned(1024) is not None


def test_a_container_without_proc_has_what_the_system_call_says(tmp_path: Path) -> None:
    class Unmounted(Machine):
        def virtual_memory(self) -> SimpleNamespace:
            raise FileNotFoundError(2, "No such file or directory", "/proc/meminfo")

    found = host_memory(root=tmp_path, machine=Unmounted(swap_error=FileNotFoundError(2, "/proc/vmstat")))
    assert found.total_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.available_bytes <= found.total_bytes
    assert found.swap_bytes == 0


class Targets(TorchDispatchMode):
    """Whether each array that is copied into is contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.contiguous: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            self.contiguous.append(args[0].is_contiguous())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("samples", [7, 5])
def test_what_comes_from_a_card_needs_no_second_copy_on_the_host(samples: int) -> None:
    card = Accelerator(torch.cuda, torch.device("cpu"), torch.float32, grouped=True, workspace=0)
    audio = np.zeros((2, 7), dtype=np.float32)
    made = torch.rand(2, samples)
    with Targets() as targets:
        card.download(audio[:, :samples], made)
    assert (audio[:, :samples] == made.numpy()).all()
    assert not audio[:, samples:].any()
    assert targets.contiguous
    assert all(targets.contiguous)
