"""What the installed torch was built for, read from its files, because importing it takes seconds."""

import re
from importlib.util import find_spec
from pathlib import Path

import msgspec

from acestep.hardware.card import CardKind

_LINE = re.compile(r"^(__version__|cuda|hip|xpu)\b[^=\n]*=\s*[\"']([^\"'\n]*)[\"']", re.MULTILINE)


class TorchBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A torch build: its version, and the versions of its platforms; "" for a platform it was not built for."""

    version: str
    cuda: str = ""
    hip: str = ""
    xpu: str = ""

    @property
    def kinds(self) -> tuple[CardKind, ...]:
        """The kinds of card that it can use; every build for macOS supports Apple's."""
        built = (
            (CardKind.ROCM, self.hip),
            (CardKind.CUDA, self.cuda if not self.hip else ""),
            (CardKind.XPU, self.xpu),
        )
        return (*(kind for kind, version in built if version), CardKind.MPS)

    @property
    def built_for(self) -> str:
        """The platforms it was built for, as text."""
        named = (("CUDA", self.cuda), ("ROCm", self.hip), ("Intel GPUs", self.xpu))
        return next((f"{name} {version}" for name, version in reversed(named) if version), "the CPU")


def installed_build(file: Path | None = None) -> TorchBuild | None:
    """Return the installed torch, from its file `version.py`; None if there is none."""
    if file is None:
        spec = find_spec("torch")
        if spec is None or not spec.submodule_search_locations:
            return None
        file = Path(next(iter(spec.submodule_search_locations))) / "version.py"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    told = dict(_LINE.findall(text))
    if "__version__" not in told:
        return None
    return TorchBuild(
        version=told["__version__"], cuda=told.get("cuda", ""), hip=told.get("hip", ""), xpu=told.get("xpu", "")
    )
