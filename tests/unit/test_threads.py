"""PyTorch computes with the threads that suit the model and the cores, unless the user chose a number."""

import errno
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from acestep.devices import threads
from acestep.devices.threads import CHOSEN_BY_THE_USER, SMALL_BYTES, set_threads, threads_for
from acestep.hardware.cores import usable_cores
from acestep.torch_environment import set_defaults


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_a_small_model_takes_one_thread_and_others_every_core(cores: int) -> None:
    assert threads_for(SMALL_BYTES - 1, cores) == 1
    assert threads_for(SMALL_BYTES, cores) == cores


class Threads:
    """Records the number that is set, instead of setting it for all other tests."""

    def __init__(self, patch: pytest.MonkeyPatch, cores: int, now: int) -> None:
        self.set: list[int] = []
        patch.setattr(threads, "usable_cores", lambda: cores)
        patch.setattr(torch, "get_num_threads", lambda: now)
        patch.setattr(torch, "set_num_threads", self.set.append)


def test_threads_are_set_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Threads(monkeypatch, cores=4, now=4)
    large = nn.Linear(SMALL_BYTES // 4, 1, bias=False, device="meta")
    set_threads([large, nn.Linear(2, 2)], {})
    assert seen.set == []
    set_threads([nn.Linear(2, 2)], {})
    assert seen.set == [1]


@pytest.mark.parametrize("name", CHOSEN_BY_THE_USER)
def test_a_number_that_the_user_set_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Threads(monkeypatch, cores=4, now=3)
    set_threads([nn.Linear(2, 2)], {name: "3"})
    assert seen.set == []
    set_threads([nn.Linear(2, 2)], {name: ""})
    assert seen.set == [1]


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = {"proc/self/cgroup": "4:cpu,cpuacct:/box\n3:memory:/box"}
V2 = {"proc/self/cgroup": "0::/box"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (V2 | {"sys/fs/cgroup/box/cpu.max": "max 100000"}, 8),
        (V2 | {"sys/fs/cgroup/box/cpu.max": "250000 100000"}, 3),
        (V2 | {"sys/fs/cgroup/box/cpu.max": "1000 100000"}, 1),
        (V2 | {"sys/fs/cgroup/cpu.max": "200000 100000", "sys/fs/cgroup/box/cpu.max": "400000 100000"}, 2),
        (V2 | {"sys/fs/cgroup/box/cpu.max": "9000000 100000"}, 8),
        (V2 | {"sys/fs/cgroup/box/cpu.max": "what 0"}, 8),
        (V2 | {"sys/fs/cgroup/box/cpu.max": "100000 0"}, 8),
        (V1 | {"sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000"}, 8),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_the_smallest_quota_of_all_groups_counts(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 8)
    assert usable_cores(written(tmp_path, files)) == cores


def test_two_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads of an eight-core machine: both of core 0, one of core 1, and one of which nothing is said."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 8, 1, 5}, raising=False)
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    written(tmp_path, {folder.format(number): text for number, text in ((0, "0,8\n"), (8, "0,8\n"), (1, "1,9\n"))})
    assert usable_cores(tmp_path) == 3


def test_cores_that_the_scheduler_withholds_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8 if logical else None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert usable_cores(tmp_path) == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


def test_what_the_environment_says_is_kept() -> None:
    environ = {"OMP_WAIT_POLICY": "active", "TORCHINDUCTOR_CACHE_DIR": "here"}
    set_defaults(environ)
    assert environ == {
        "OMP_WAIT_POLICY": "active",
        "TORCHINDUCTOR_CACHE_DIR": "here",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


def test_what_is_compiled_is_kept_in_the_user_s_own_cache(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "later")}
    set_defaults(environ)
    assert environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "later" / "acestep" / "compiled")
    assert not list(tmp_path.iterdir()), "nothing is made before something is compiled"


@pytest.mark.parametrize("way", ["relative", "a file", "not ours", "not entered"])
def test_a_cache_that_cannot_be_written_is_left_to_pytorch(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    if way == "a file":
        place.write_text("")
    elif way == "not ours":
        monkeypatch.setattr("os.access", lambda *_: False)
    elif way == "not entered":
        monkeypatch.setattr(Path, "exists", _refused)
    environ = {"XDG_CACHE_HOME": "place" if way == "relative" else str(place)}
    set_defaults(environ)
    assert "TORCHINDUCTOR_CACHE_DIR" not in environ


def test_the_cache_of_windows_is_used_there(tmp_path: Path) -> None:
    environ = {"LOCALAPPDATA": str(tmp_path)}
    set_defaults(environ)
    assert environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "acestep" / "compiled")


def _refused(path: Path) -> bool:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))
