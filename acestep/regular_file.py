"""Regular files: whether a path is one, and the content of one that may be anything."""

import stat
from pathlib import Path
from typing import BinaryIO

from acestep.errors import InvalidInputError
from acestep.units import mib


def is_file(path: Path) -> bool:
    """Whether there is such a file that this user may look at; False for a name that no file can have, too."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder that this user may look at; False for a name that no folder can have, too."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def require_regular(path: Path) -> None:
    """Raise `InvalidInputError` for anything but a regular file, `OSError` for none.

    Opening a pipe waits for a writer, and a device such as /dev/zero never ends.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidInputError(path, "is a folder, a pipe or a device, not a file; save it as a file and give that")


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading bytes; raise as `require_regular` does."""
    require_regular(path)
    return path.open("rb")


def content_of(path: Path, most_bytes: int, wanted: str, *, from_shell: bool = False) -> bytes:
    """Return the content of a file of at most `most_bytes`; `wanted` is what it should be, for the error message.

    Raises `OSError`, and `InvalidInputError` for a larger file and for anything but a regular file. With `from_shell`
    what a shell passes, such as /dev/stdin, is read too: such a pipe has a writer.
    """
    with path.open("rb") if from_shell and path.parts[:2] == ("/", "dev") else open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise InvalidInputError(path, f"is larger than {mib(most_bytes)}, so it is not {wanted}")
    return content
