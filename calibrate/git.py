"""Reads a checkout through git: its commits, and files as they were at one.

Foreign text is never passed as an option.
"""

import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acestep.errors import UsageError

_ELSEWHERE = frozenset(
    {
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_PREFIX"),
        *("GIT_ATTR_SOURCE", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
    }
)
"""Variables with which git, also in a hook of its own, reads another repository than the one that is named."""

_AS_STORED = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
"""A commit is what its id says: no replacement and no graft of it, no attribute of this machine."""


class GitError(UsageError):
    """Git is not installed, or does not know the requested object."""


def git(checkout: Path, *arguments: str) -> bytes:
    """Return git's output; raise `GitError` with git's error text if it fails or is not installed."""
    done = _asked(checkout, *arguments)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[:1]
        raise GitError(f"git {arguments[0]} failed: {' '.join(said)}")
    return done.stdout


def commit_of(checkout: Path, reference: str) -> str:
    """Return the id of the commit that a reference names; raise `GitError` if it names none."""
    # A reference that begins with a dash would be an option; one that excludes a commit gives no plain id.
    named = (
        b""
        if reference.startswith("-")
        else _asked(checkout, "rev-parse", "--verify", f"{reference}^{{commit}}").stdout
    )
    if not re.fullmatch(r"[0-9a-f]+", commit := named.decode(errors="replace").strip()):
        raise GitError(f"git knows no commit {reference!r}; fetch it, or name another with --base")
    return commit


@contextmanager
def folder_at(checkout: Path, reference: str, *paths: str) -> Iterator[Path]:
    """A temporary folder with some paths of a checkout at a commit, without those that did not exist there."""
    commit = commit_of(checkout, reference)
    with tempfile.TemporaryDirectory() as place:
        there = git(checkout, "ls-tree", "--name-only", "-z", commit, "--", *paths).decode().split("\0")[:-1]
        if there:
            archive = io.BytesIO(git(checkout, "archive", "--format=tar", commit, "--", *there))
            try:
                with tarfile.open(fileobj=archive) as files:
                    files.extractall(place, filter="data")
            except tarfile.TarError as error:
                raise GitError(
                    f"{', '.join(paths)} at {reference!r} cannot be read: {error}; name another with --base"
                ) from None
        yield Path(place)


def _asked(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(checkout), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE} | _AS_STORED
    try:
        return subprocess.run(command, env=environment, capture_output=True, check=False)  # noqa: S603 fixed program
    except FileNotFoundError:
        raise GitError("git is not installed, so no commit can be read; install it") from None
