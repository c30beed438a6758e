"""What PyTorch's libraries read from the environment when they are imported."""

import os
from collections.abc import MutableMapping
from pathlib import Path

DEFAULTS = {
    # From 2.13 on, torch warns of every allocation that fails, even if its retry succeeds.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # A thread that waits for work gives its core away. By default it keeps it busy, and beside other programs a song
    # then takes up to ten times as long.
    "OMP_WAIT_POLICY": "passive",
}


def set_defaults(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set; must be called before torch is imported."""
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
    if (folder := _compiled_folder(environ)) is not None:
        environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _compiled_folder(environ: MutableMapping[str, str]) -> Path | None:
    """Where every process keeps and finds what was compiled; None if it cannot be looked at or written there.

    PyTorch's own choice is the folder of temporary files, which is emptied when the computer starts.
    """
    try:
        cache = environ.get("XDG_CACHE_HOME") or environ.get("LOCALAPPDATA") or Path.home() / ".cache"
        folder = Path(cache) / "acestep" / "compiled"
        there = next(place for place in (folder, *folder.parents) if place.exists())
    except (RuntimeError, OSError):  # there is no home, or it cannot be entered
        return None
    return folder if folder.is_absolute() and there.is_dir() and os.access(there, os.W_OK | os.X_OK) else None
