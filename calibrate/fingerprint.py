"""Everything besides the question that can change an answer: the code, the libraries, and the card."""

import hashlib
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from acestep.version import version

LIBRARIES = ("torch", "diffusers", "transformers", "torchao")
"""Packages whose allocations are counted, besides Python itself."""

SOURCE_PATTERNS = (
    "acestep/**/*.py",
    "calibrate/probes/**/*.py",
    "calibrate/workload.py",
)
"""The code that decides how much memory a run takes and how it is measured."""

SHOWING = ("acestep/ui/", "acestep/serving/", "acestep/http_api/")
"""Subfolders that only show and serve songs: a new colour makes no record outdated."""

ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Environment variables of PyTorch's allocator, the newest name first."""


class ProbeSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides an answer on a given card besides the question: code, libraries and the allocator's settings."""

    code: str
    libraries: dict[str, str]
    allocator: str


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two answers to one question agree if their fingerprints do. `budget` is the digest of the policy's terms."""

    code: str
    libraries: dict[str, str]
    card: str
    cap_method: str
    budget: str
    allocator: str

    def differences(self, other: "Fingerprint") -> Iterator[str]:
        """Yield the differences as text."""
        for name in self.__struct_fields__:
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                yield f"{name.replace('_', ' ')} {_told(there)} instead of {_told(here)}"


def fingerprint(card: str, cap_method: str, budget: str, setting: ProbeSetting | None = None) -> Fingerprint:
    """Return the fingerprint of answers given under a setting; that of this process if none is given."""
    setting = setting or setting_here()
    return Fingerprint(
        code=setting.code,
        libraries=setting.libraries,
        card=card,
        cap_method=cap_method,
        budget=budget,
        allocator=setting.allocator,
    )


def setting_here() -> ProbeSetting:
    """The setting of this process."""
    settings = [f"{name}={os.environ[name]}" for name in ALLOCATOR_SETTINGS if name in os.environ]
    return ProbeSetting(code=code_version(), libraries=library_versions(), allocator=" ".join(settings))


def library_versions() -> dict[str, str]:
    """The versions installed here, read without importing anything."""
    from importlib import metadata

    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


@cache
def code_version() -> str:
    """Return the version of the measuring code: the package's version and a digest of the sources that decide memory.

    The sources are read at the first call; later edits do not count.
    """
    root = Path(__file__).parent.parent
    tree = hashlib.sha256()
    for source in sorted({path for pattern in SOURCE_PATTERNS for path in root.glob(pattern)}):
        path = source.relative_to(root).as_posix()
        if not path.startswith(SHOWING):
            tree.update(f"{path}\0".encode())
            tree.update(source.read_bytes())
    return f"{version()}+tree.{tree.hexdigest()[:16]}"


def _told(value: object) -> str:
    parts = (f"{name} {version}" for name, version in value.items()) if isinstance(value, dict) else (repr(value),)
    return ", ".join(parts)
