"""The limits that Linux control groups set on memory and processor time, read from the files that show them.

The kernel's Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and scheduler/sched-bwc.rst describe
the files.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

import msgspec

_UNLIMITED = 1 << 60
"""Version 1 shows "no limit" as the largest multiple of the page size, just below 2**63. No machine has 2**60 bytes."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The limit of one group, in bytes. `used_bytes` excludes file cache, which the kernel can free.

    `swap_bytes` is what the group may still swap out, None if it sets no limit of its own.
    """

    folder: str
    limit_bytes: int
    used_bytes: int = 0
    swap_bytes: int | None = None

    @property
    def free_bytes(self) -> int:
        """The bytes that a process in this group can still take."""
        return max(0, self.limit_bytes - self.used_bytes)


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the files of one version."""

    limit: str
    usage: str
    cache: tuple[str, ...]


_V2 = _Version(limit="memory.max", usage="memory.current", cache=("inactive_file", "active_file"))
# The names with `total_` count the groups below as well, as the usage does.
_V1 = _Version(
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    cache=("total_inactive_file", "total_active_file"),
)


class _Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that shows the groups below `root`, and the version of their interface."""

    point: PurePosixPath
    version: _Version
    root: PurePosixPath = PurePosixPath("/")


def _usual_mounts(controller: str) -> tuple[_Mount, ...]:
    """Return the usual places of the mounts, for a system that does not list them."""
    return (
        _Mount(point=PurePosixPath("/sys/fs/cgroup"), version=_V2),
        _Mount(point=PurePosixPath("/sys/fs/cgroup/unified"), version=_V2),
        _Mount(point=PurePosixPath("/sys/fs/cgroup", controller), version=_V1),
    )


def memory_limits(root: Path = Path("/")) -> tuple[Limit, ...]:
    """Return the limits that apply to this process: those of its group and of every enclosing group, outermost first.

    `root` is the top of the file system. Missing or invalid files set no limit. Empty on systems without control
    groups.
    """
    found: dict[str, Limit] = {}
    for folder, version in _folders(root, "memory"):
        if (limit := _limit(root, folder, version)) is not None:
            found.setdefault(limit.folder, limit)
    return tuple(found.values())


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the smallest quota of processor time, in cores, of this process's groups; None if none sets one."""
    quotas = []
    for folder, version in _folders(root, "cpu"):
        place = root / folder.relative_to("/")
        if version is _V2:
            numbers = _text(place / "cpu.max").split()
        else:
            numbers = [_text(place / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        # A group without a quota has "max" in version 2 and -1 in version 1.
        if len(numbers) == 2 and all(map(_is_number, numbers)):
            quota, period = (int(number) for number in numbers)
            quotas += [quota / period] if quota and period else []
    return min(quotas, default=None)


def _folders(root: Path, controller: str) -> Iterator[tuple[PurePosixPath, _Version]]:
    """Yield the folders that show this process's group for a controller and every enclosing group, outermost first."""
    groups = _groups(_text(root / "proc/self/cgroup"), controller)
    mounts = _mounts(_text(root / "proc/self/mountinfo"), controller) or _usual_mounts(controller)
    for mount in mounts:
        if (group := groups.get(mount.version.limit)) is not None:
            for folder in _way_to(group, mount):
                yield folder, mount.version


def _groups(text: str, controller: str) -> Mapping[str, PurePosixPath]:
    """The group of this process by version; lines are ``hierarchy:controllers:path``, version 2 has ``0::path``."""
    groups = {}
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            groups[_V2.limit] = PurePosixPath("/", path)
        elif controller in controllers.split(","):
            groups[_V1.limit] = PurePosixPath("/", path)
    return groups


def _mounts(text: str, controller: str) -> list[_Mount]:
    """The mounts in ``/proc/self/mountinfo`` that show the groups of a controller (proc_pid_mountinfo(5))."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        if len(fields) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        if kind == "cgroup2" or controller in options.split(","):
            root, point = (PurePosixPath(_unescaped(field)) for field in fields[3:5])
            mounts.append(_Mount(point=point, version=_V2 if kind == "cgroup2" else _V1, root=root))
    return mounts


def _unescaped(field: str) -> str:
    for written, meant in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(written, meant)
    return field


def _way_to(group: PurePosixPath, mount: _Mount) -> Iterator[PurePosixPath]:
    """Yield the folders of the groups from the mount down to `group`; only the mount if it shows another part.

    A container often shows its own group as the top, while the path is still the one on the host.
    """
    yield mount.point
    with suppress(ValueError):
        folder = mount.point
        for name in group.relative_to(mount.root).parts:
            if name == "..":
                return
            folder /= name
            yield folder


def _limit(root: Path, folder: PurePosixPath, version: _Version) -> Limit | None:
    place = root / folder.relative_to("/")
    statistics = _statistics(place / "memory.stat")
    # Above `memory.high` (version 2) a process is slowed down until it stands still. Version 1 gives the smallest limit
    # of all enclosing groups in its statistics; a container may not show those groups.
    files = (version.limit, "memory.high")
    limits = (*(_bytes(place / file) for file in files), statistics.get("hierarchical_memory_limit"))
    limit = min((limit for limit in limits if limit is not None), default=_UNLIMITED)
    if limit >= _UNLIMITED:
        return None
    usage = _bytes(place / version.usage) or 0
    cache = sum(statistics.get(name, 0) for name in version.cache)
    return Limit(
        folder=str(folder),
        limit_bytes=limit,
        used_bytes=max(0, usage - cache),
        swap_bytes=_swap_v2(place) if version is _V2 else _swap_v1(place, limit, usage),
    )


def _swap_v2(place: Path) -> int | None:
    most = _bytes(place / "memory.swap.max")
    return None if most is None else max(0, most - (_bytes(place / "memory.swap.current") or 0))


def _swap_v1(place: Path, limit: int, usage: int) -> int | None:
    """Version 1 limits memory and swap together, and this is what is left beyond the limit of the memory."""
    both = _bytes(place / "memory.memsw.limit_in_bytes")
    if both is None:
        return None
    swapped = max(0, (_bytes(place / "memory.memsw.usage_in_bytes") or 0) - usage)
    return max(0, both - limit - swapped)


def _bytes(file: Path) -> int | None:
    """Return the number in a file; None for ``max``, for version 1's largest number, and for invalid text."""
    text = _text(file).strip()
    number = int(text) if _is_number(text) else _UNLIMITED
    return number if number < _UNLIMITED else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _statistics(file: Path) -> Mapping[str, int]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and _is_number(pair[1])}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
