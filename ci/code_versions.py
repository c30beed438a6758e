"""The code versions of a repository's commits, as `calibrate run` records them."""

import hashlib
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from calibrate.fingerprint import SHOWING, SOURCE_PATTERNS
from calibrate.git import GitError, git

MOST_COMMITS = 200
"""The number of commits that are searched for a record's code."""

_PATTERNS = tuple(pattern.replace("**/", "") for pattern in SOURCE_PATTERNS)
"""The files in the digest of a code version today; a star also matches across folders here."""


def versions_of_commits(checkout: Path, reference: str) -> Iterator[str]:
    """Yield the code version of each commit, newest first, as `calibrate.fingerprint.code_version` gives it there."""
    commits = git(checkout, "rev-list", f"--max-count={MOST_COMMITS}", reference).decode().split()
    contents: dict[str, bytes] = {}
    for commit in commits:
        blobs = dict(_blobs(checkout, commit))
        if "pyproject.toml" not in blobs:
            continue
        for blob in blobs.values():
            if blob not in contents:
                contents[blob] = git(checkout, "cat-file", "blob", blob)
        try:
            release = tomllib.loads(contents[blobs.pop("pyproject.toml")].decode())["project"]["version"]
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError):
            continue
        tree = hashlib.sha256()
        for path in sorted(blobs, key=Path):
            tree.update(f"{path}\0".encode())
            tree.update(contents[blobs[path]])
        yield f"{release}+tree.{tree.hexdigest()[:16]}"


def is_known(checkout: Path, reference: str, version: str) -> bool:
    """Return whether a commit up to `reference` has this code version; False if git cannot tell."""
    if not re.fullmatch(r"\d+\.\d+\.\d+\+tree\.[0-9a-f]{16}", version):
        return False
    try:
        return any(version == found for found in versions_of_commits(checkout, reference))
    except GitError:
        return False


def _blobs(checkout: Path, commit: str) -> Iterator[tuple[str, str]]:
    """Path and blob of every file that a code version depends on."""
    for line in git(checkout, "ls-tree", "-r", "-z", commit).decode(errors="replace").split("\0"):
        kind, _, path = line.partition("\t")
        counts = any(fnmatch(path, pattern) for pattern in _PATTERNS) and not path.startswith(SHOWING)
        if counts or path == "pyproject.toml":
            yield path, kind.split()[2]
