"""Names the files of a change that decide how it is judged, or that run when Python, make or a workflow starts.

Nothing of the change is imported: its files are compared with the base through git, and its code is only parsed.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from calibrate.git import commit_of, git
from ci.findings import Finding
from ci.looking import looking_names

JUDGING = (
    "ci/",
    "calibrate/",
    ".ci/",
    ".github/",
    "acestep/budgets.py",
    "acestep/cli/console.py",
    "acestep/cli/options.py",
    "acestep/devices/base.py",
    "acestep/devices/cpu.py",
    "acestep/errors.py",
    "acestep/evidence.py",
    "acestep/hardware/card.py",
    "acestep/knobs.py",
    "acestep/limits/capabilities.py",
    "acestep/memory/tensors.py",
    "acestep/limits/workspace.py",
    "acestep/output_file.py",
    "acestep/regular_file.py",
    "acestep/stage.py",
    "acestep/strict_json.py",
    "acestep/tiers.py",
    "acestep/units.py",
    "acestep/vram_range.py",
    "constraints.txt",
    "tiers/anchor.json",
    "tools/install.py",
    "virtual_card/",
)
"""Files and folders that decide a verdict.

The rules, what reads the files, exit codes, the judge's libraries, and what defines the simulated card and its stages.
"""

_READING = ("ci/", "calibrate/", "acestep/")
"""Of those, the packages that read tables, policies and records."""

_SHOWING = ("calibrate/explain/", "calibrate/profiling/", "calibrate/report/")
"""Folders of `calibrate` that only show results; the gate imports nothing of them (`tools/rooms.py`)."""

UNSEEN = tuple(f"acestep/lm/backends/vllm_{name}.py" for name in ("engine", "model", "rows"))
"""What is handed to vLLM's engine: it allocates by itself, where no simulation sees it."""

STARTING = re.compile(
    r"(^|/)((site|user)customize(\.py|/.*)|conftest\.py|setup\.(py|cfg)|hatch_build\.py|pyproject\.toml|pyvenv\.cfg"
    r"|pytest\.ini|tox\.ini|(GNUm|[Mm])akefile|\.git(attributes|modules)|\.pre-commit-config\.yaml"
    r"|[^/]*\.(mk|pth|_pth|pyc|so|pyd|dll|dylib|egg-link))$"
)
"""Names of files that run, or change what runs, without being asked for: by Python, pytest, pip, make or git."""

_PLAIN = re.compile(r"[\w.+@-]+(/[\w.+@-]+)*", re.ASCII)

_LINKS = {"120000": "a link", "160000": "a submodule"}


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A path that differs from the base, whether the base lacks it, and its file mode in the change."""

    path: str
    added: bool
    mode: str


def changed_paths(tree: Path, base: str) -> tuple[Changed, ...]:
    """Every path of a checkout that differs from a commit, files that git does not track yet included.

    Raises `GitError` where git cannot tell.
    """
    commit = commit_of(tree, base)
    told = git(tree, "diff", "--raw", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none", commit, "--")
    fields = _texts(told)
    found = [
        Changed(path=path, added=header.split()[-1] == "A", mode=header.split()[1])
        for header, path in zip(fields[::2], fields[1::2], strict=True)
    ]
    untracked = _texts(git(tree, "ls-files", "-z", "--others", "--exclude-standard"))
    modes = ("120000" if (tree / path).is_symlink() else "100644" for path in untracked)
    return (*found, *(Changed(path=path, added=True, mode=mode) for path, mode in zip(untracked, modes, strict=True)))


def harness_findings(tree: Path, base: str) -> Iterator[Finding]:
    """Yield a finding for each changed file that judges, starts by itself, or is code that looks at what judges it.

    Raises `GitError` where git cannot tell.
    """
    commit = commit_of(tree, base)
    known = set(_texts(git(tree, "ls-tree", "-z", "--name-only", commit)))
    for changed in changed_paths(tree, base):
        path = changed.path
        if reason := _reason(changed, known):
            yield Finding(id="G204", field=path, message=f"{path} {reason}: a maintainer has to review it.")
        elif path.startswith("acestep/") and path.endswith(".py"):
            yield from _reaching(tree, commit, changed)


def judges(finding: Finding) -> bool:
    """Return whether a finding says that the judge's own code, its rules or its readers change."""
    return finding.id == "G204" and _is_judging(finding.field)


def reads(finding: Finding) -> bool:
    """Return whether a finding says that code changes with which the judge reads the files of a change."""
    return judges(finding) and finding.field.startswith(_READING)


def _is_judging(path: str) -> bool:
    return path.startswith(JUDGING) and not path.startswith(_SHOWING) and not path.endswith(".md")


def _reason(changed: Changed, known: set[str]) -> str:
    """Why a maintainer has to review a changed path; empty for the others."""
    path = PurePosixPath(changed.path)
    if changed.mode in _LINKS:
        return f"is {_LINKS[changed.mode]}, whose target may be outside of the repository"
    if not _PLAIN.fullmatch(changed.path):
        return "has a name that not every system and tool reads alike"
    if _is_judging(changed.path):
        return "decides what is judged and is itself changed"
    if changed.path in UNSEEN:
        return (
            "decides what vLLM takes, which is not simulated; compare `python -m tools.vllm_footprint` before and after"
        )
    if STARTING.search(changed.path):
        return "runs without being asked for and is changed"
    if changed.added and path.suffix == ".py" and path.parts[0] not in known:
        return "is new beside the packages, where it can be imported instead of a library"
    return ""


def _reaching(tree: Path, commit: str, changed: Changed) -> Iterator[Finding]:
    path = changed.path
    try:
        after = (tree / path).read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): a maintainer has to review it."
        yield Finding(id="G206", field=path, message=message)
        return
    known = looking_names(b"" if changed.added else git(tree, "cat-file", "blob", f"{commit}:{path}"))
    for line, name in sorted((line, name) for name, line in looking_names(after).items() if name not in known):
        said = f"line {line} uses {name}, with which code can see or change what judges it"
        yield Finding(id="G206", field=path, after=name, message=f"{path}, {said}: a maintainer has to review it.")


def _texts(told: bytes) -> list[str]:
    return [text.decode(errors="replace") for text in told.split(b"\0") if text]
