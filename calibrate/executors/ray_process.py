"""A command on a machine of a Ray cluster, with files that are sent along: it answers each line with a line.

Ray carries this class to its machines as it is here, so it imports nothing of ours.
"""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast


class LineProcess:
    """A process of Python with some folders of an archive in front of all others where it looks for modules."""

    def __init__(
        self, archive: bytes, folders: Sequence[str], arguments: Sequence[str], passed_on: Sequence[str]
    ) -> None:
        self._place = TemporaryDirectory()
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(self._place.name, filter="data")
        environ = {name: os.environ[name] for name in passed_on if name in os.environ}
        search = os.pathsep.join(str(Path(self._place.name) / folder) for folder in folders)
        self._process = subprocess.Popen(  # noqa: S603 the arguments are the driver's
            [sys.executable, *arguments],
            cwd=self._place.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )

    def libraries(self, names: Sequence[str]) -> Mapping[str, str]:
        """The versions of some packages on this machine, empty for one that is missing."""
        found = {}
        for name in names:
            with suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        return {name: found.get(name, "") for name in names}

    def ask(self, line: bytes) -> bytes:
        """The line that answers; without a line end if the process has ended."""
        try:
            sent = cast(IO[bytes], self._process.stdin)
            sent.write(line)
            sent.flush()
            return cast(IO[bytes], self._process.stdout).readline()
        except OSError:
            return b""

    def close(self) -> None:
        """End the process, and remove its files."""
        self._process.kill()
        self._process.wait()
        self._place.cleanup()


def packed(folders: Mapping[str, tuple[Path, Sequence[str]]]) -> bytes:
    """An archive with some parts of folders, each folder under its new name, without compiled files."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in Path(entry.name).parts else entry

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as files:
        for name, (folder, parts) in folders.items():
            for part in parts:
                if (folder / part).exists():
                    files.add(folder / part, f"{name}/{part}", filter=kept)
    return out.getvalue()
