"""A machine with virtual cards: the folder that all its processes share, and the environment they run in."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from virtual_card.build import LIBRARY, NVML, ROOM, build_folder
from virtual_card.card import DRIVER, MIB, Nvml, System, VirtualCard, card_lines
from virtual_card.controls import MOST_CARDS, ClosedOnExit, Control, Controls
from virtual_card.imports import output

CUDA_VERSION: Final = 13_000
"""What a driver that is new enough says, as CUDA counts: 13.0."""

RUNTIMES: Final = {"": (), "address": ("libasan.so",), "undefined": ("libubsan.so",), "thread": ("libtsan.so",)}
"""What has to be loaded before a library that was built with a sanitizer."""


class VirtualMachine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cards and their driver. A `cuda_version` below 13000 is a driver too old for PyTorch.

    Copies of up to `copy_limit` bytes happen; of larger ones, memory of the host is zeros afterwards.
    """

    cards: tuple[VirtualCard, ...] = (VirtualCard(),)
    system: System = System.LINUX
    nvml: Nvml = Nvml.WORKS
    cuda_version: int = CUDA_VERSION
    copy_limit: int = 4 * MIB

    def __post_init__(self) -> None:
        if len(self.cards) > MOST_CARDS:
            raise ValueError(f"a machine has at most {MOST_CARDS} virtual cards, got {len(self.cards)}")


def is_built(sanitizer: str = "") -> bool:
    """Whether there is a library for the PyTorch of this interpreter."""
    return (build_folder(version("torch"), sanitizer) / LIBRARY).exists()


class RunningMachine(ClosedOnExit):
    """A machine that processes can be started on. Its folder goes with it."""

    def __init__(self, machine: VirtualMachine, sanitizer: str = "") -> None:
        """Raises `FileNotFoundError` where the library was not built for the PyTorch of this interpreter."""
        self.machine = machine
        self._library = build_folder(version("torch"), sanitizer)
        self._sanitizer = sanitizer
        if not is_built(sanitizer):
            raise FileNotFoundError(f"{self._library / LIBRARY} is missing; build it with `make virtual-card`")
        self.folder = Path(tempfile.mkdtemp(prefix="virtual-card-"))
        lines = [
            f"driver {DRIVER}",
            f"cuda_version {machine.cuda_version}",
            f"nvml {machine.nvml}",
            f"copy_limit {machine.copy_limit}",
        ]
        self.controls = Controls(self.folder / "controls")
        for index, card in enumerate(machine.cards):
            lines += card_lines(card, index, machine.system)
            self.controls.set(Control.OTHERS_BYTES, card.others_bytes, index)
        (self.folder / "machine.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Remove the folder; processes that still run keep what they opened."""
        self.controls.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self) -> ctypes.CDLL:
        """Put this very process on the machine, before it imports PyTorch, and all that it starts."""
        os.environ.update(self.environ())
        if self.machine.nvml is not Nvml.MISSING:
            ctypes.CDLL(str(self._library / "nvml" / NVML), ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(self._library / LIBRARY), ctypes.RTLD_GLOBAL)

    def environ(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The environment of a process on this machine; what it starts inherits it."""
        libraries = [str(self._library)]
        if self.machine.nvml is not Nvml.MISSING:
            libraries.append(str(self._library / "nvml"))
        python = [str(ROOM / "windows")] if self.machine.system is System.WINDOWS else []
        preload = [*(_runtime(name) for name in RUNTIMES[self._sanitizer]), str(self._library / LIBRARY)]
        return {
            **environ,
            "VIRTUAL_CARD_MACHINE": str(self.folder),
            "LD_PRELOAD": _joined(preload, environ.get("LD_PRELOAD")),
            "LD_LIBRARY_PATH": _joined(libraries, environ.get("LD_LIBRARY_PATH")),
            # Triton builds its launcher against the driver's library of this folder.
            "TRITON_LIBCUDA_PATH": str(self._library),
            **({"PYTHONPATH": _joined(python, environ.get("PYTHONPATH"))} if python else {}),
        }


def _joined(first: list[str], rest: str | None) -> str:
    return os.pathsep.join([*first, *([rest] if rest else [])])


def _runtime(name: str) -> str:
    return output("g++", f"-print-file-name={name}").strip()
