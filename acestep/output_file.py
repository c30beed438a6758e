"""Files that commands write: opened before any work, written beside their target and renamed."""

import errno
import glob
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acestep.errors import RunFailedError, UsageError


@contextmanager
def output_file(target: Path | None, check: Callable[[Path], object] | None = None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a text to `target`, completely or not at all; without a target it does nothing.

    A file beside the target is opened first, so that a path that cannot be written is a `UsageError` before any work;
    so is a device or a pipe, which renaming would replace. A symbolic link stays, and its target is written.
    The function raises `RunFailedError` if the disk refuses; if it is not called, the target stays unchanged. `check`
    reads the written file and raises if it must not replace the target.
    """
    if target is None:
        yield lambda _: None
        return
    try:
        str(target).encode()
    except UnicodeEncodeError:
        # No JSON document could hold it.
        raise UsageError(f"the file's name {str(target)!r} is not UTF-8; choose another") from None
    try:
        place = _place_of(target)
        remove_parts(place.parent, f".{place.name}.")
        beside = place.with_name(f".{place.name}.{os.getpid()}{PART_SUFFIX}")
        beside.touch()
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; choose another path") from None

    def write(text: str) -> None:
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(beside)
            beside.replace(place)
        except OSError as error:
            raise RunFailedError(f"could not write {target}: {error.strerror}; free some space and retry") from None

    try:
        yield write
    finally:
        beside.unlink(missing_ok=True)


PART_SUFFIX = ".part"
"""The suffix of files and folders that are not complete; before it, the name has the number of their process."""


def part_prefix() -> str:
    """Return the beginning of the name of a temporary file or folder of this process, which ends in `PART_SUFFIX`."""
    return f".{os.getpid()}-"


def remove_parts(folder: Path, prefix: str = ".") -> None:
    """Remove what processes that were killed left incomplete in a folder, under names that begin with `prefix`."""
    for path in folder.glob(f"{glob.escape(prefix)}*{PART_SUFFIX}"):
        owner = re.search(r"\.(\d{1,9})(?:-[^.]*)?\.part$", path.name)
        if owner is None or _is_running(int(owner[1])):
            continue
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where this question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _place_of(target: Path) -> Path:
    """Return the file that `target` is or links to, which need not exist; raise `OSError` for anything but a file."""
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
    return target.resolve()
