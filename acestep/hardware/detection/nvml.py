"""NVIDIA cards from the driver's management library (NVML), without torch."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import msgspec

from acestep.hardware.card import LARGEST_CARD_BYTES, Card, CardKind
from acestep.hardware.card_sizes import catalogued
from acestep.hardware.detection.answers import Answer, Problem, Source, one_line
from acestep.hardware.detection.families import capability_of, machine_bytes, shares_memory
from acestep.hardware.detection.patience import DRIVER_LONGEST_S, within
from acestep.hardware.detection.visible import CUDA_VARIABLE, cuda_visible, mig_visible
from acestep.units import GIB

ASKED = "NVIDIA's driver library"

MOST_BOARDS = 1024
"""A larger count is no count: a machine has at most some dozens."""

_MOST_SLICES = 64
"""The places for MIG slices that are looked at on one board; a board has at most seven."""

_NOT_SUPPORTED, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _MISMATCH = 3, 9, 12, 18
_LOST = (15, 16, 999)
"""Numbers of NVML's errors (nvml.h): lost, in need of a reset, unknown."""


class _Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A MIG slice of a board; `names` are those by which `CUDA_VISIBLE_DEVICES` may name it."""

    handle: Any
    names: tuple[str, ...]


class _Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board that answered. A board with MIG slices shows its slices and not itself."""

    handle: Any
    uuid: str
    is_cut: bool
    slices: tuple[_Slice, ...]


def ask_nvml(
    environ: Mapping[str, str], nvml: Any = None, memory_bytes: int | None = None, longest_s: float = DRIVER_LONGEST_S
) -> Answer:
    """Return the NVIDIA cards that CUDA would show, and the others.

    `memory_bytes` is the memory of boards that share the main memory; None stands for this machine's.
    """
    try:
        nvml = nvml or import_module("pynvml")
    except ImportError:
        return _silent(Problem(sentence="the package nvidia-ml-py is not installed", serious=False))

    def ask() -> Answer:
        nvml.nvmlInit()
        try:
            return _Inquiry(nvml, memory_bytes).answer(environ)
        finally:
            _quietly(nvml, "nvmlShutdown")

    try:
        return within(longest_s, ASKED, ask)
    except TimeoutError as error:
        return _silent(_refusal_because(str(error)))
    except Exception as error:
        return _silent(_refusal(error))


def free_now(card: Card, nvml: Any = None, longest_s: float = DRIVER_LONGEST_S) -> int | None:
    """Return the bytes that are free on an NVIDIA card now; None if the library does not say."""
    if card.kind is not CardKind.CUDA or not card.uuid:
        return None

    def ask() -> int:
        nvml.nvmlInit()
        try:
            return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(card.uuid)).free)
        finally:
            _quietly(nvml, "nvmlShutdown")

    try:
        nvml = nvml or import_module("pynvml")
        free = within(longest_s, ASKED, ask)
    except Exception:
        return None
    return free if 0 <= free <= LARGEST_CARD_BYTES else None


class _Inquiry:
    """One session with the library; `problems` collects its errors."""

    def __init__(self, nvml: Any, memory_bytes: int | None) -> None:
        self._nvml = nvml
        self._memory_bytes = memory_bytes
        self.problems: list[Problem] = []
        self.lost = 0

    def answer(self, environ: Mapping[str, str]) -> Answer:
        nvml = self._nvml
        count = nvml.nvmlDeviceGetCount()
        if not isinstance(count, int) or not 0 <= count <= MOST_BOARDS:
            raise ValueError(f"it counts {count} cards")
        boards = [self._board(index) for index in range(count)]
        driver = _text(_quietly(nvml, "nvmlSystemGetDriverVersion") or "")
        self._warn_of_order(environ, boards)
        shown = self._shown(environ.get(CUDA_VARIABLE), boards)
        every = [unit for board in boards if board is not None for unit in units(board)]
        hidden = [unit for unit in every if unit not in shown]
        version = _quietly(nvml, "nvmlSystemGetCudaDriverVersion")
        number = version if isinstance(version, int) and version > 0 else 0
        return Answer(
            source=Source.NVML,
            asked=ASKED,
            cards=self._cards(shown, driver),
            hidden=self._cards(hidden, driver, with_problems=False),
            problems=tuple(self.problems),
            lost=self.lost,
            driver_cuda=(number // 1000, number % 1000 // 10),
        )

    def _board(self, index: int) -> _Board | None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except Exception as error:
            self._leave_out(f"NVIDIA board {index}", error)
            return None
        mode = _quietly(nvml, "nvmlDeviceGetMigMode", handle)
        is_cut = isinstance(mode, list | tuple) and bool(mode and mode[0])
        slices = self._slices(handle, uuid) if is_cut else ()
        if is_cut and not slices:
            self.problems.append(
                Problem(
                    sentence=f"NVIDIA board {index} is set to be cut into slices (MIG) and has none, so it is no card.",
                    advice="nvidia-smi mig -cgi makes slices, and nvidia-smi -mig 0 gives the whole board back.",
                )
            )
        return _Board(handle=handle, uuid=uuid, is_cut=is_cut, slices=slices)

    def _leave_out(self, board: str, error: Exception) -> None:
        self.lost += _number(error) in _LOST
        self.problems.append(
            Problem(
                sentence=f"{board} does not answer ({error_sentence(error)}) and is left out.",
                advice="If it stays so after a restart, look at its power and its seat, and at the system's log.",
            )
        )

    def _slices(self, board: Any, uuid: str) -> tuple[_Slice, ...]:
        nvml = self._nvml
        found = []
        places = _quietly(nvml, "nvmlDeviceGetMaxMigDeviceCount", board)
        for index in range(min(places, _MOST_SLICES) if isinstance(places, int) and places > 0 else 1):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, index)
                name = _text(nvml.nvmlDeviceGetUUID(handle))
            except Exception:  # noqa: S112 a place without a slice
                continue
            instance = _quietly(nvml, "nvmlDeviceGetGpuInstanceId", handle)
            compute = _quietly(nvml, "nvmlDeviceGetComputeInstanceId", handle)
            older = () if None in (instance, compute) else (f"MIG-{uuid}/{instance}/{compute}",)
            found.append(_Slice(handle=handle, names=(name, *older)))
        return tuple(found)

    def _shown(self, text: str | None, boards: list[_Board | None]) -> list[tuple[_Board, _Slice | None]]:
        """Return what CUDA would show, in its order; of several slices only the first."""
        if text is not None and text.strip().startswith("MIG-"):
            cut = [(board, part) for board in boards if board is not None for part in board.slices]
            index = mig_visible(text, [part.names for _, part in cut])
            return [] if index is None else [cut[index]]
        listed = [boards[index] for index in cuda_visible(text, [board.uuid if board else "" for board in boards])]
        shown: list[tuple[_Board, _Slice | None]] = []
        for board in listed:
            if board is None or (board.is_cut and (shown or not board.slices)):
                continue
            if board.is_cut:
                return [(board, board.slices[0])]
            shown.append((board, None))
        return shown

    def _warn_of_order(self, environ: Mapping[str, str], boards: list[_Board | None]) -> None:
        order, text = environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID"), environ.get(CUDA_VARIABLE, "")
        if order != "PCI_BUS_ID" and len(boards) > 1 and text.strip()[:1].isdigit():
            self.problems.append(
                Problem(
                    sentence=f"CUDA_DEVICE_ORDER is {order}, so the numbers in {CUDA_VARIABLE} ({text}) are CUDA's own"
                    " order, which only CUDA knows; they were read in the order of the slots.",
                    advice=f"Name the cards by UUID in {CUDA_VARIABLE}, or set CUDA_DEVICE_ORDER=PCI_BUS_ID.",
                )
            )

    def _cards(
        self, shown: list[tuple[_Board, _Slice | None]], driver: str, *, with_problems: bool = True
    ) -> tuple[Card, ...]:
        kept, lost = len(self.problems), self.lost
        cards = [self._card(board, part, driver) for board, part in shown]
        if not with_problems:
            del self.problems[kept:]
            self.lost = lost
        return tuple(card for card in cards if card is not None)

    def _card(self, board: _Board, part: _Slice | None, driver: str) -> Card | None:
        nvml, handle = self._nvml, board.handle if part is None else part.handle
        uuid = board.uuid if part is None else part.names[0]
        name = _text(_quietly(nvml, "nvmlDeviceGetName", handle)) or "NVIDIA card"
        try:
            total, unified = self._memory(handle, name)
        except Exception as error:
            self._leave_out(f"{name} ({uuid})", error)
            return None
        return Card(
            kind=CardKind.CUDA,
            name=name,
            uuid=uuid,
            total_bytes=total,
            capability=_capability(nvml, board.handle) or capability_of(name),
            driver=driver,
            unified=unified,
        )

    def _memory(self, handle: Any, name: str) -> tuple[int, bool]:
        """Return a card's bytes, and whether they are the machine's own; raise if the card is lost."""
        try:
            total = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
        except Exception as error:
            if _number(error) in _LOST:
                raise
            total, reason = 0, error_sentence(error)
            shares = _number(error) == _NOT_SUPPORTED
        else:
            reason, shares = f"it says {total} bytes", total == 0
        if 0 < total <= LARGEST_CARD_BYTES:
            return total, shares_memory(name)
        if sizes := catalogued(name):
            self._without_size(name, reason, "its name says how large it is at least")
            return sizes[0] * GIB, False
        if shares or shares_memory(name):
            self._without_size(name, reason, "its memory is taken to be the machine's own, which it shares")
            return machine_bytes() if self._memory_bytes is None else self._memory_bytes, True
        self._without_size(name, reason, "torch is asked when a model is loaded")
        return 0, False

    def _without_size(self, name: str, reason: str, instead: str) -> None:
        self.problems.append(
            Problem(
                sentence=f"The driver does not say how much memory {name} has ({reason}); {instead}.", serious=False
            )
        )


def units(board: _Board) -> list[tuple[_Board, _Slice | None]]:
    """Return the parts of a board that could be a card: its MIG slices, or the board itself."""
    return [(board, part) for part in board.slices] if board.is_cut else [(board, None)]


def error_sentence(error: Exception) -> str:
    """Return an error of the library in its own words, without control characters and the final full stop."""
    try:
        return one_line(str(error)).rstrip(".") or type(error).__name__
    except Exception:
        return type(error).__name__


def _text(told: Any) -> str:
    """Return text of the library, which older versions return as bytes."""
    return one_line(told.decode(errors="replace") if isinstance(told, bytes) else str(told or ""))


def _capability(nvml: Any, board: Any) -> tuple[int, int] | None:
    """Return a board's compute capability; None if the library does not say."""
    match _quietly(nvml, "nvmlDeviceGetCudaComputeCapability", board):
        case [int(major), int(minor)] if 0 < major < 100 and 0 <= minor < 10:
            return major, minor
    return None


def _quietly(nvml: Any, function: str, *arguments: Any) -> Any:
    """Return the result of a function, or None if this driver, card or library does not have it."""
    try:
        return getattr(nvml, function)(*arguments)
    except Exception:
        return None


def _number(error: Exception) -> int:
    """The number of an error of the library; 0 for any other."""
    value = getattr(error, "value", 0)
    return value if isinstance(value, int) else 0


def _refusal(error: Exception) -> Problem:
    """Return why the library gave no answer at all."""
    number = _number(error)
    if number in (_LIBRARY_NOT_FOUND, _DRIVER_NOT_LOADED):
        why = "is not installed" if number == _LIBRARY_NOT_FOUND else "finds no NVIDIA driver that is loaded"
        return Problem(sentence=f"NVIDIA's driver library {why}.", serious=False)
    if number == _MISMATCH:
        return Problem(
            sentence="NVIDIA's driver library is of another version than the driver that is loaded.",
            advice="Restart the machine; in a container, use the library of the host's driver.",
        )
    return _refusal_because(error_sentence(error))


def _refusal_because(reason: str) -> Problem:
    return Problem(
        sentence=f"NVIDIA's driver library gives no answer ({reason}).",
        advice="Restart the machine, or install the driver again; nvidia-smi should list the card.",
    )


def _silent(problem: Problem) -> Answer:
    return Answer(source=Source.NVML, asked=ASKED, problems=(problem,))
