"""Names the files of a change that decide how it is judged, or that run when Python, make or a workflow starts.

Nothing of the change is imported: its files are compared with the base through git, and its code is only parsed.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from calibrate.git import commit_of, git
from ci.findings import Finding
from ci.looking import new_looks
from ci.starting import is_idle, start_problem

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
    "tiers/published_tiers.json",
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

DECIDING = {
    "acestep/clip.py": ("LATENT_HOP", "MAX_ASKED_S", "SAMPLE_RATE"),
    "acestep/fields.py": ("LONGEST_PLAN_S", "SHORTEST_PLAN_S"),
    "acestep/lm/grammar.py": ("MAX_CAPTION_TOKENS",),
    "acestep/lm/prompts.py": ("MAX_THOUGHT_TOKENS",),
    "acestep/request.py": (
        *("CODE_FRAMES", "LEAST_FRAMES", "MAX_BATCH", "MAX_DURATION_S", "MAX_LYRIC_TOKENS", "MAX_TEXT_TOKENS"),
    ),
    "acestep/thinking.py": ("LONGEST_PROMPT_TOKENS",),
}
"""Numbers of the pipeline that decide which run certifies a promise: the longest prompt, song and batch."""

_PLAIN = re.compile(r"(?!-)[\w.+@-]*[\w+@-](/(?!-)[\w.+@-]*[\w+@-])*", re.ASCII)

_RESERVED = re.compile(r"(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.[^/]*)?(/|$)", re.IGNORECASE)
"""Names that Windows gives to devices."""

_OF_SONGS = tuple(f"acestep/{name}/" for name in ("adapters", "devices", "dit", "engine", "memory"))
"""The code that a probe runs from a request to its songs."""

_CODE = ("acestep", "calibrate", "ci", "tiers")
"""Folders in which a file counts although git is told to ignore it: the simulation runs what lies there."""

_COMPILED = re.compile(r"(^|/)__pycache__/|\.pyc$")
"""What Python writes beside code; the gate does not copy it."""

_LINKS = {"120000": "a link", "160000": "a submodule"}


_GONE = "000000"
"""The file mode of a path that the change takes away."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A path that differs from the base, whether the base lacks it, and its file mode in the change."""

    path: str
    added: bool
    mode: str


def changed_paths(tree: Path, base: str) -> tuple[Changed, ...]:
    """Every path of a checkout that differs from a commit, files that git does not track yet included.

    Hidden ones that git does not track, and that nothing runs or reads, are no part of a change.
    Raises `GitError` where git cannot tell.
    """
    commit = commit_of(tree, base)
    told = git(tree, "diff", "--raw", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none", commit, "--")
    fields = _texts(told)
    found = [
        Changed(path=path, added=header.split()[-1] == "A", mode=header.split()[1])
        for header, path in zip(fields[::2], fields[1::2], strict=True)
    ]
    untracked = set(_texts(git(tree, "ls-files", "-z", "--others", "--exclude-standard")))
    ignored = _texts(git(tree, "ls-files", "-z", "--others", "--", *_CODE))
    untracked |= {path for path in ignored if not _COMPILED.search(path)}
    modes = {path: "120000" if (tree / path).is_symlink() else "100644" for path in sorted(untracked)}
    brought = {path: mode for path, mode in modes.items() if mode in _LINKS or not is_idle(path)}
    return (*found, *(Changed(path=path, added=True, mode=mode) for path, mode in brought.items()))


def harness_findings(tree: Path, base: str) -> Iterator[Finding]:
    """Yield a finding for each changed file that judges, starts by itself, or is code that looks at what judges it.

    Raises `GitError` where git cannot tell.
    """
    commit = commit_of(tree, base)
    known = set(_texts(git(tree, "ls-tree", "-z", "--name-only", commit)))
    all_changed = changed_paths(tree, base)
    alike = _alike(_there(tree, all_changed))
    for changed in all_changed:
        path = changed.path
        if reason := _reason(changed, known) or ("" if changed.mode == _GONE else _collision(path, alike)):
            yield _about(path, reason)
        elif path.startswith("acestep/") and path.endswith(".py"):
            yield from _reaching(tree, commit, changed)
        if path in DECIDING and not reason:
            yield from _decided(tree, commit, path)
    yield from (_about(path, "is marked in git's index, so that git does not look at it") for path in _unseen(tree))


def judges(finding: Finding) -> bool:
    """Return whether a finding says that the judge's own code, its rules or its readers change."""
    return finding.id == "G204" and _is_judging(finding.field)


def reads(finding: Finding) -> bool:
    """Return whether a finding says that code changes with which the judge reads the files of a change."""
    return judges(finding) and finding.field.startswith(_READING)


def _about(path: str, reason: str) -> Finding:
    return Finding(id="G204", field=path, message=f"{path} {reason}: a maintainer has to review it.")


def _unseen(tree: Path) -> list[str]:
    """The paths that git was told to take for unchanged, or that are left out of the checkout."""
    marked = (entry.partition(" ") for entry in _texts(git(tree, "ls-files", "-v", "-z")))
    return [path for mark, _, path in marked if mark.islower() or mark == "S"]


def _there(tree: Path, all_changed: Iterable[Changed]) -> set[str]:
    """The files that the change has: those of git's index that are not deleted, and those that git does not track."""
    gone = {changed.path for changed in all_changed if changed.mode == _GONE}
    gone |= set(_texts(git(tree, "ls-files", "-z", "--deleted")))
    listed = set(_texts(git(tree, "ls-files", "-z"))) - gone
    return listed | {changed.path for changed in all_changed if changed.mode != _GONE}


def _alike(paths: Iterable[str]) -> dict[str, set[str]]:
    """The files and folders by their name in small letters: systems that do not tell them apart keep only one."""
    alike: dict[str, set[str]] = {}
    for path in paths:
        for place in (path, *map(str, PurePosixPath(path).parents)):
            alike.setdefault(place.casefold(), set()).add(place)
    return alike


def _collision(path: str, alike: dict[str, set[str]]) -> str:
    for place in (path, *map(str, PurePosixPath(path).parents)):
        if others := sorted(alike[place.casefold()] - {place}):
            return f"differs from {others[0]} only by upper and lower case"
    return ""


def _decided(tree: Path, commit: str, path: str) -> Iterator[Finding]:
    """Yield each number of a file that decides what certifies a promise, and is another than at the base."""
    at_base = _texts(git(tree, "ls-tree", "-z", "--name-only", commit, "--", path))
    before = _constants(git(tree, "cat-file", "blob", f"{commit}:{path}")) if at_base else {}
    after = _constants((tree / path).read_bytes()) if (tree / path).is_file() else {}
    for name in DECIDING[path]:
        then, now = before.get(name, "none"), after.get(name, "none")
        if then != now:
            told = f"{path}, {name} is {now}, at the base it is {then}: it decides what certifies a promise, and"
            yield Finding(
                id="G204", field=path, before=then, after=now, message=f"{told} a maintainer has to review it."
            )


def _constants(source: bytes) -> dict[str, str]:
    """What is assigned to each name anywhere in a module, as code; nothing of code that cannot be parsed."""
    found: dict[str, str] = {}
    try:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    name = ast.unparse(target)
                    found[name] = ", then ".join(filter(None, (found.get(name, ""), ast.unparse(node.value))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return found


def _is_judging(path: str) -> bool:
    path = path.casefold()
    return path.startswith(JUDGING) and not path.startswith(_SHOWING) and not path.endswith(".md")


def _reason(changed: Changed, known: set[str]) -> str:
    """Why a maintainer has to review a changed path; empty for the others."""
    path = PurePosixPath(changed.path)
    if changed.mode in _LINKS:
        return f"is {_LINKS[changed.mode]}, whose target may be outside of the repository"
    if not _PLAIN.fullmatch(changed.path) or _RESERVED.search(changed.path):
        return "has a name that not every system and tool reads alike"
    if _is_judging(changed.path):
        return "decides what is judged and is itself changed"
    if changed.path in UNSEEN:
        return (
            "decides what vLLM takes, which is not simulated; compare `python -m tools.vllm_footprint` before and after"
        )
    if problem := start_problem(changed.path):
        return problem
    if changed.added and path.suffix.casefold() == ".py" and path.parts[0] not in known:
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
    before = b"" if changed.added else git(tree, "cat-file", "blob", f"{commit}:{path}")
    for line, name in new_looks(before, after, of_songs=path.startswith(_OF_SONGS)):
        said = f"line {line} uses {name}, with which code can see or change what judges it, or do otherwise elsewhere"
        yield Finding(id="G206", field=path, after=name, message=f"{path}, {said}: a maintainer has to review it.")


def _texts(told: bytes) -> list[str]:
    return [text.decode(errors="replace") for text in told.split(b"\0") if text]
