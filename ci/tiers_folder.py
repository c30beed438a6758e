"""Checks what lies in the tiers folder of a change: plain files with plain names, so that every later change is read.

Hidden files that git does not track, and that nothing runs or reads, such as an unfinished record, are left out.

A link may point outside of the repository; a commit with one under `tiers/` could not be the base of a later change.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from calibrate.git import GitError, git
from ci.findings import Finding
from ci.starting import is_idle

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FOLDERS = frozenset({"measurements", "schema"})
_SUFFIXES = frozenset({".json"})
_SUBMODULE = b"160000"


def folder_findings(folder: Path) -> Iterator[Finding]:
    """Yield everything in a tiers folder that is no plain JSON file, or has an unusual name."""
    if folder.is_symlink():
        yield _finding(folder.name, "is a link")
        return
    seen: dict[str, str] = {}
    idle = _idle(folder)
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).as_posix() in idle and not path.is_symlink():
            continue
        shown = f"{folder.name}/{path.relative_to(folder).as_posix()}".encode(errors="replace").decode()
        problem = _problem(path, folder)
        if other := seen.get(shown.casefold()):
            problem = f"differs from {other} only by upper and lower case"
        seen[shown.casefold()] = shown
        if problem:
            yield _finding(shown, problem)
    yield from (_finding(path, "is a submodule") for path in _submodules(folder))


def _problem(path: Path, folder: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "is a link"
    if not _PLAIN.fullmatch(path.name):
        return "has an unusual name"
    if stat.S_ISDIR(mode):
        return "" if path.parent == folder and path.name in _FOLDERS else "is no folder of records or schemas"
    if not stat.S_ISREG(mode):
        return "is no file"
    return "" if path.suffix in _SUFFIXES else "is no JSON file"


def _idle(folder: Path) -> frozenset[str]:
    """The files of a folder that no change brings; none where git does not know the folder."""
    try:
        untracked = git(folder, "ls-files", "-z", "--others", "--", ".").decode(errors="replace").split("\0")
    except GitError:
        return frozenset()
    return frozenset(filter(is_idle, untracked))


def _submodules(folder: Path) -> Iterator[str]:
    """Submodules in git's index: on disk one is an empty folder, or a checkout of something else."""
    try:
        entries = git(folder, "ls-files", "-z", "--stage", "--", ".").split(b"\0")
    except GitError:
        return
    for entry in entries:
        mode, _, path = entry.partition(b"\t")
        if mode.startswith(_SUBMODULE):
            yield f"{folder.name}/{path.decode(errors='replace')}"


def _finding(path: str, problem: str) -> Finding:
    message = f"{path} {problem}; tiers/ holds JSON files with names of A-Z a-z 0-9 and ._- and nothing else."
    return Finding(id="G107", field=path, message=message)
