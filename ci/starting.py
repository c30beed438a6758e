"""Names of files that run, or change what runs, unasked: by Python, pytest, pip, make, git or an editor.

Only names are looked at. A hidden file is one whose name, or the name of a folder around it, begins with a dot.
"""

import re

_STARTS = re.compile(
    r"(^|/)((site|user)customize(\.py|/.*)|conftest\.py|setup\.(py|cfg)|hatch_build\.py|pyproject\.toml|pyvenv\.cfg"
    r"|pytest\.(ini|toml)|tox\.(ini|toml)|noxfile\.py|(mypy|pip)\.ini|pip\.conf|(ruff|uv|hatch|pixi|pylock)\.toml"
    r"|uv\.lock|meson\.build|cmakelists\.txt|dockerfile|jenkinsfile|azure-pipelines\.ya?ml"
    r"|(gnu)?makefile|[^/]*\.(dist|egg)-info(/.*)?"
    r"|[^/]*\.(mk|pth|_pth|pyc|pyo|pyw|so|pyd|dll|dylib|egg|egg-link|whl|zip|pyz))$",
    re.IGNORECASE,
)

_HIDDEN = re.compile(r"(^|/)\.(?!gitignore$)[^/]*(/.*)?$", re.IGNORECASE)
"""All hidden files but git's list of what it ignores."""

_HIDDEN_AND_READ = re.compile(
    # Git's own files, workflows, and the folders of the gate.
    r"(^|/)\.(git(?!(keep|ignore)$)[^/]*|ci|env(\.[^/]*)?|devcontainer|direnv)(/.*)?$"
    # Hooks, and what an editor starts when it opens a folder.
    r"|(^|/)[^/]*hooks?(\.[^/]*)?(/|$)|(^|/)\.husky/|(^|/)\.vscode/tasks\.json$|(^|/)\.idea/startup\.xml$"
    # Code and settings of tools; records and other JSON files, which are found by the ends of their names.
    r"|(^|/)\.[^/]*rc(\.[^/]*)?$|\.(py|pyi|pyx|ini|cfg|conf|toml|ya?ml)$|(^|/)\.[^/]*\.json$",
    re.IGNORECASE,
)


def start_problem(path: str) -> str:
    """Return what is to be said of a changed path that may start code; empty for the others."""
    if _STARTS.search(path):
        return "runs, or changes what runs, without being asked for, and is changed"
    if _HIDDEN.search(path):
        return "is a hidden file, which git, an editor or another tool may read without being asked, and is changed"
    return ""


def is_idle(path: str) -> bool:
    """Return whether a path is hidden, and neither starts code nor is read by Python, git, pytest or the gate.

    Such are what an editor, a system or a tool leaves for itself, for example `.idea/workspace.xml` or `.a.py.swp`.
    """
    return bool(_HIDDEN.search(path)) and not _STARTS.search(path) and not _HIDDEN_AND_READ.search(path)
