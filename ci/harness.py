"""Names the files of a change that decide how it is judged, or that run when Python, make or a workflow starts.

Nothing of the change is imported: its files are compared with the base through git, and its code is only parsed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from calibrate.git import commit_of, git
from ci.findings import Finding

JUDGING = (
    "ci/",
    "calibrate/",
    ".ci/",
    ".github/",
    "acestep/cli/console.py",
    "acestep/cli/options.py",
    "acestep/devices/base.py",
    "acestep/devices/cpu.py",
    "acestep/errors.py",
    "acestep/hardware/card.py",
    "acestep/knobs.py",
    "acestep/limits/capabilities.py",
    "acestep/memory/tensors.py",
    "acestep/memory/workspace.py",
    "acestep/output_file.py",
    "acestep/stage.py",
    "acestep/strict_json.py",
    "acestep/tiers.py",
    "acestep/units.py",
    "constraints.txt",
    "tiers/anchor.json",
    "tools/install.py",
    "virtual_card/",
)
"""Files and folders that decide a verdict.

The rules, what reads the files, exit codes, the judge's libraries, and what defines the simulated card and its stages.
"""

_SHOWING = ("calibrate/explain/", "calibrate/profiling/", "calibrate/report/")
"""Folders of `calibrate` that only show results; the gate imports nothing of them (`tools/rooms.py`)."""

STARTING = re.compile(
    r"(^|/)((site|user)customize(\.py|/.*)|conftest\.py|setup\.(py|cfg)|hatch_build\.py|pyproject\.toml|pyvenv\.cfg"
    r"|pytest\.ini|tox\.ini|(GNUm|[Mm])akefile|\.git(attributes|modules)|\.pre-commit-config\.yaml"
    r"|[^/]*\.(mk|pth|_pth|pyc|so|pyd|dll|dylib|egg-link))$"
)
"""Names of files that run, or change what runs, without being asked for: by Python, pytest, pip, make or git."""

_PLAIN = re.compile(r"[\w.+@-]+(/[\w.+@-]+)*", re.ASCII)

_LINKS = {"120000": "a link", "160000": "a submodule"}

_REACHES = re.compile(
    r"(calibrate|ci|virtual_card|tests|importlib|ctypes|inspect|atexit|builtins|marshal|gc\.get_\w+"
    r"|sys\.(modules|meta_path|path|settrace|setprofile|_getframe|argv|exit)|os\.(_exit|kill|exec\w*|fork|abort)"
    r"|__import__|exec|eval|__builtins__|SystemExit)(\..*)?"
)
"""Names with which code can find out that it is being simulated, or change the code that simulates it."""

_ASKS_DEVICE = frozenset({"is_meta", "is_cuda", "is_cpu", "is_mps", "is_xpu"})


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
            yield Finding(id="G204", field=path, message=f"{path} {reason}: a maintainer looks.")
        elif path.startswith("acestep/") and path.endswith(".py"):
            yield from _reaching(tree, commit, changed)


def judges(finding: Finding) -> bool:
    """Return whether a finding says that the judge's own code, its rules or its readers change."""
    return finding.id == "G204" and _is_judging(finding.field)


def _is_judging(path: str) -> bool:
    return path.startswith(JUDGING) and not path.startswith(_SHOWING)


def _reason(changed: Changed, known: set[str]) -> str:
    """Why a maintainer looks at a changed path; empty for the others."""
    path = PurePosixPath(changed.path)
    if changed.mode in _LINKS:
        return f"is {_LINKS[changed.mode]}, which can lead anywhere"
    if not _PLAIN.fullmatch(changed.path):
        return "has a name that not every system and tool reads alike"
    if _is_judging(changed.path):
        return "decides what is judged and is itself changed"
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
    before = b"" if changed.added else git(tree, "cat-file", "blob", f"{commit}:{path}")
    for line, name in sorted({(line, name) for name, line in _reached(after).items() if name not in _reached(before)}):
        said = f"line {line} uses {name}, with which code can see or change what judges it"
        yield Finding(id="G206", field=path, after=name, message=f"{path}, {said}: a maintainer looks.")


def _reached(source: bytes) -> dict[str, int]:
    """The names of `_REACHES` and the questions about a device in some code, each with its first line."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return {"code that Python cannot parse": 1}
    found: dict[str, int] = {}
    for node in nodes:
        for name in _names(node):
            found.setdefault(name, getattr(node, "lineno", 1))
    return found


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _REACHES.fullmatch(alias.name))
    elif isinstance(node, ast.ImportFrom):
        imported = [f"{node.module}.{alias.name}" for alias in node.names] if node.module and not node.level else []
        yield from (name for name in imported if _REACHES.fullmatch(name))
    elif isinstance(node, ast.Attribute):
        if node.attr in _ASKS_DEVICE:
            yield f".{node.attr}"
        elif isinstance(node.value, ast.Name) and _REACHES.fullmatch(name := f"{node.value.id}.{node.attr}"):
            yield name
    elif isinstance(node, ast.Name) and node.id in ("__import__", "exec", "eval", "__builtins__", "SystemExit"):
        yield node.id
    elif isinstance(node, ast.Constant) and node.value == "meta":
        yield '"meta"'
    elif isinstance(node, ast.Compare) and any(
        isinstance(side, ast.Attribute) and side.attr == "type" for side in (node.left, *node.comparators)
    ):
        yield f"the comparison {ast.unparse(node)}"


def _texts(told: bytes) -> list[str]:
    return [text.decode(errors="replace") for text in told.split(b"\0") if text]
