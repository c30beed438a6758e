"""What could change an answer besides the question: the code that ran and the libraries under it."""

import hashlib
import platform
import tomllib
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "diffusers", "transformers", "torchao")
"""Packages whose allocations are counted, besides Python itself."""


def library_versions() -> dict[str, str]:
    """The versions installed here, read without importing anything."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def code_version() -> str:
    """Which code answered: the package's version and a digest of the sources that decide how much memory runs take."""
    root = Path(__file__).parent.parent
    try:
        version = metadata.version("acestep-calibrated")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tree = hashlib.sha256()
    for source in sorted([*root.glob("acestep/**/*.py"), *root.glob("calibrate/probes/**/*.py")]):
        tree.update(f"{source.relative_to(root).as_posix()}\0".encode())
        tree.update(source.read_bytes())
    return f"{version}+tree.{tree.hexdigest()[:16]}"
