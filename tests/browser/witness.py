"""The `acestep` command with a recorder of what its process does: python witness.py JOURNAL TABLE ARGUMENT...

A line of the journal is one JSON object: a song's beginning or end, a path that was read or written, or an address that
was connected to. TABLE replaces the tier table in force; empty leaves it.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from acestep import tiers
from acestep.cli.main import main
from acestep.request import Request

OUT_OF_MEMORY = "(out of memory)"
"""This text in a song's caption makes the song run out of memory."""

CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree")
BELOW_A_FOLDER = ("os.remove", "os.rmdir", "shutil.rmtree")
"""Events whose last argument may be the descriptor of the folder that the path is below."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def observe(journal: Path) -> None:
    """Write every generation, path and connection of this process to a journal."""
    # Imported here, so that a test that only needs the name of this file is spared seconds.
    from acestep.engine import pipeline

    lines = journal.open("a", encoding="utf-8", buffering=1)
    # An audit hook runs inside whatever is being audited, the writing of a line included.
    at_work = threading.local()

    def write(**line: Any) -> None:
        lines.write(json.dumps(line) + "\n")

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if getattr(at_work, "now", False):
            return
        at_work.now = True
        try:
            if event == "open":
                write(event="write" if arguments[2] & WRITES else "read", what=_path(arguments[0]))
            elif event in CHANGES:
                below = arguments[-1] if event in BELOW_A_FOLDER else None
                write(event="write", what=_path(arguments[0], below))
            elif event == "socket.connect":
                write(event="connect", what=str(arguments[1]))
        finally:
            at_work.now = False

    generate = pipeline.Pipeline.generate

    def witnessed(self: Any, request: Request, **options: Any) -> Any:
        write(event="begin", seed=request.seed)
        try:
            return generate(self, request, **options)
        finally:
            write(event="end", seed=request.seed)

    pipeline.Pipeline.generate = witnessed  # type: ignore[method-assign]
    sys.addaudithook(audit)


def fail_on_request() -> None:
    """Let the memory run out in a song whose caption asks for that."""
    import torch

    from acestep.engine import pipeline

    denoise = pipeline.denoise

    def denoised(request: Request, *rest: Any) -> Any:
        if OUT_OF_MEMORY in request.caption:
            raise torch.OutOfMemoryError("tried to allocate 9.00 GiB")
        return denoise(request, *rest)

    pipeline.denoise = denoised


def _path(given: Any, below: int | None = None) -> str:
    """An absolute path; a pipe or socket has none. `below` is the descriptor of a folder, or none if negative."""
    if given is None:
        return ""
    if isinstance(given, int):
        place = os.readlink(f"/proc/self/fd/{given}")  # noqa: PTH115 what is not a file has no path
        return place if os.path.isabs(place) else ""  # noqa: PTH117
    name = os.fsdecode(given)
    folder = "" if below is None or below < 0 else os.readlink(f"/proc/self/fd/{below}")  # noqa: PTH115
    return os.path.abspath(os.path.join(folder, name))  # noqa: PTH100,PTH118 links stay


def use_table(path: Path) -> None:
    """Let the tier table be read from a file of ours."""
    in_force = tiers.data_file
    tiers.data_file = lambda name: path if name == "generated_tiers.json" else in_force(name)


def run(journal: str, table: str, *arguments: str) -> None:
    """Run as the `acestep` command, observed."""
    if table:
        use_table(Path(table))
    observe(Path(journal))
    fail_on_request()
    sys.argv = ["acestep", *arguments]
    main()


if __name__ == "__main__":
    run(*sys.argv[1:])
