"""Machines with cards, as their sources show them: a driver library, the kernel's files, and a torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pynvml

from acestep.units import GIB

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND = 3, 4, 6, 9, 12
FUNCTION_NOT_FOUND, IS_LOST, MISMATCH, UNKNOWN = 13, 15, 18, 999


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a board."""

    uuid: str
    gib: float
    instance: int = 1


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board as NVML lists it. `fails` holds the error of each function that fails for it."""

    name: str
    uuid: str
    gib: float
    capability: tuple[int, int] = (8, 9)
    is_cut: bool = False
    parts: tuple[Part, ...] = ()
    fails: dict[str, int] = {}


class FakeNvml:
    """The functions that are called, as `pynvml` has them; anything else does not exist. `opened` counts sessions."""

    NVMLError = pynvml.NVMLError

    def __init__(self, boards: Sequence[Board], *, start: int = 0, driver: str = "580.1", cuda: int = 13000) -> None:
        self.boards = list(boards)
        self.opened = 0
        self._start = start
        self._driver = driver
        self._cuda = cuda

    def nvmlInit(self) -> None:  # noqa: N802 the library's name
        if self._start:
            raise pynvml.NVMLError(self._start)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        assert self.opened, "closed what was not open"
        self.opened -= 1

    def __getattr__(self, function: str) -> Callable[..., Any]:
        answers: dict[str, Callable[..., Any]] = {
            "nvmlDeviceGetCount": lambda: len(self.boards),
            "nvmlSystemGetDriverVersion": lambda: self._driver,
            "nvmlSystemGetCudaDriverVersion": lambda: self._cuda,
            "nvmlDeviceGetHandleByIndex": self._handle,
            "nvmlDeviceGetUUID": lambda unit: unit.uuid,
            "nvmlDeviceGetName": lambda unit: unit.name if isinstance(unit, Board) else f"{self._of(unit).name} MIG 1g",
            "nvmlDeviceGetMemoryInfo": lambda unit: SimpleNamespace(total=int(unit.gib * GIB)),
            "nvmlDeviceGetCudaComputeCapability": lambda unit: list(unit.capability),
            "nvmlDeviceGetMigMode": self._mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda board: 7 if board.is_cut else 0,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._part,
            "nvmlDeviceGetGpuInstanceId": lambda part: part.instance,
            "nvmlDeviceGetComputeInstanceId": lambda part: 0,
        }
        if function not in answers:
            raise AttributeError(f"pynvml has no {function}")

        def call(*arguments: Any) -> Any:
            assert self.opened, f"{function} was called on a library that is closed"
            for unit in arguments:
                if isinstance(unit, Board) and function in unit.fails:
                    raise pynvml.NVMLError(unit.fails[function])
            return answers[function](*arguments)

        return call

    def _handle(self, index: int) -> Board:
        board = self.boards[index]
        if "nvmlDeviceGetHandleByIndex" in board.fails:
            raise pynvml.NVMLError(board.fails["nvmlDeviceGetHandleByIndex"])
        return board

    def _mig_mode(self, board: Board) -> list[int]:
        if not board.is_cut:
            raise pynvml.NVMLError(NOT_SUPPORTED)
        return [1, 1]

    def _part(self, board: Board, index: int) -> Part:
        if index >= len(board.parts):
            raise pynvml.NVMLError(NOT_FOUND)
        return board.parts[index]

    def _of(self, part: Part) -> Board:
        return next(board for board in self.boards if part in board.parts)


def drm_card(root: Path, name: str, vendor: str, **files: str) -> Path:
    """A card's folder below `root`, with the files of its device; `tile0` in a name stands for a folder."""
    device = root / name / "device"
    device.mkdir(parents=True)
    for file, text in {"vendor": vendor, "device": "0x744c", **files}.items():
        target = (root / name if file == "lmem_total_bytes" else device) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")
    return device


def amd_card(root: Path, name: str, own: float, shared: float = 0, **files: str) -> Path:
    """An AMD card with so many GiB of its own, and so many of the machine's."""
    memory = {"mem_info_vram_total": str(int(own * GIB)), "mem_info_gtt_total": str(int(shared * GIB))}
    return drm_card(root, name, "0x1002", **memory, **files)


def pci_device(root: Path, slot: str, vendor: str, kind: str, event: str) -> None:
    """A device on the PCI bus below `root`."""
    (root / slot).mkdir()
    for file, text in (("vendor", vendor), ("class", kind), ("uevent", event)):
        (root / slot / file).write_text(text + "\n")


def driver_file(root: Path, slot: str, name: str, uuid: str) -> None:
    """A card as NVIDIA's kernel driver lists it below `root`."""
    (root / slot).mkdir(parents=True)
    (root / slot / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 1\nGPU UUID: \t {uuid}\n")


def fake_torch(
    cards: Sequence[Any] = (), *, cuda: str | None = "13.0", hip: str | None = None, refusal: Exception | None = None
) -> SimpleNamespace:
    """A torch of a build, with the properties of its cards; `refusal` is why it has none."""

    def init() -> None:
        if refusal is not None:
            raise refusal

    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: bool(cards),
            init=init,
            device_count=lambda: len(cards),
            get_device_properties=lambda index: cards[index],
            is_initialized=lambda: False,
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
        xpu=SimpleNamespace(is_available=lambda: False),
    )


def properties(name: str, uuid: str, gib: float, **more: Any) -> SimpleNamespace:
    """A card as torch describes it."""
    return SimpleNamespace(name=name, uuid=uuid, total_memory=int(gib * GIB), major=8, minor=9, **more)
