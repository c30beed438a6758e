"""What could change an answer besides the question: the code that ran, the libraries under it, and the card."""

import hashlib
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

LIBRARIES = ("torch", "diffusers", "transformers", "torchao")
"""Packages whose allocations are counted, besides Python itself."""

SOURCE_PATTERNS = (
    "acestep/**/*.py",
    "calibrate/probes/**/*.py",
    "calibrate/workload.py",
)
"""The code that decides how much memory a run takes and how that is found out."""

SHOWING = "acestep/ui/"
"""A folder among it that only shows things: a new colour makes no record old."""

ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Environment variables that PyTorch's allocator listens to, the newest name first."""


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two answers to one question agree if these do. `budget` is the digest of the policy's terms."""

    code: str
    libraries: dict[str, str]
    card: str
    cap_method: str
    budget: str
    allocator: str

    def differences(self, other: "Fingerprint") -> Iterator[str]:
        """What is not the same, in words: here, and in the other."""
        for name in self.__struct_fields__:
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                yield f"{name.replace('_', ' ')} {_told(there)} instead of {_told(here)}"


def fingerprint(card: str, cap_method: str, budget: str) -> Fingerprint:
    """That of answers given here and now."""
    settings = [f"{name}={os.environ[name]}" for name in ALLOCATOR_SETTINGS if name in os.environ]
    return Fingerprint(
        code=code_version(),
        libraries=library_versions(),
        card=card,
        cap_method=cap_method,
        budget=budget,
        allocator=" ".join(settings),
    )


def library_versions() -> dict[str, str]:
    """The versions installed here, read without importing anything."""
    from importlib import metadata

    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


@cache
def code_version() -> str:
    """Which code answers: the package's version and a digest of the sources that decide how much memory runs take.

    As they were when this process first asked: what is edited later is not what answers.
    """
    import tomllib
    from importlib import metadata

    root = Path(__file__).parent.parent
    try:
        version = metadata.version("acestep-calibrated")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tree = hashlib.sha256()
    for source in sorted({path for pattern in SOURCE_PATTERNS for path in root.glob(pattern)}):
        path = source.relative_to(root).as_posix()
        if not path.startswith(SHOWING):
            tree.update(f"{path}\0".encode())
            tree.update(source.read_bytes())
    return f"{version}+tree.{tree.hexdigest()[:16]}"


def _told(value: object) -> str:
    parts = (f"{name} {version}" for name, version in value.items()) if isinstance(value, dict) else (repr(value),)
    return ", ".join(parts)
