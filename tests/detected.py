"""The sources that a fake machine answers with, looked at as `acestep` looks at a real one."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from acestep.hardware.card import CPU
from acestep.hardware.detection import Detection, look
from acestep.hardware.detection.apple import ask_apple
from acestep.hardware.detection.drm import ask_drm
from acestep.hardware.detection.nvidia_files import ask_nvidia_files
from acestep.hardware.detection.nvml import ask_nvml
from acestep.hardware.detection.torch_build import TorchBuild
from acestep.units import GIB
from tests.fake_cards import LIBRARY_NOT_FOUND, Board, FakeNvml

NO_LIBRARY = FakeNvml([], start=LIBRARY_NOT_FOUND)
FOR_CUDA, FOR_CPU = TorchBuild(version="2.13.0", cuda="13.0"), TorchBuild(version="2.13.0+cpu")
SMALL, LARGE = Board(name="small", uuid="GPU-aaaa-1", gib=8), Board(name="large", uuid="GPU-bbbb-2", gib=24)


class Machine:
    """A machine's sources: boards behind NVML, and trees of system files."""

    def __init__(self, folder: Path) -> None:
        self.drm, self.driver, self.pci, self.devices = (folder / name for name in ("drm", "driver", "pci", "dev"))
        for made in (self.drm, self.driver, self.pci, self.devices):
            made.mkdir()
        self.nvml: Any = NO_LIBRARY
        self.build: TorchBuild | None = FOR_CUDA

    def look(self, *, torch: Any = None, **environ: str) -> Detection:
        sources = (
            partial(ask_nvml, environ, self.nvml, memory_bytes=120 * GIB),
            partial(ask_nvidia_files, environ, self.driver, self.pci, self.devices),
            partial(ask_drm, environ, self.drm),
            partial(ask_apple, "Linux", "x86_64"),
        )
        found = look(environ, torch=torch, sources=sources, build=lambda: self.build)
        assert found.card is CPU or found.card in found.cards
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
