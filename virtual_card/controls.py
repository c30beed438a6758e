"""Faults on demand and other tenants: numbers that every process of a machine reads, which may change at any time."""

import mmap
import struct
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

MOST_CARDS: Final = 8
_CELL: Final = struct.Struct("=Q")


class Control(IntEnum):
    """What can be set for a card, in the order of library/controls.h. Zero means "no fault"."""

    OTHERS_BYTES = 0
    VISITOR_BYTES = 1
    VISITOR_FROM = 2
    VISITOR_UNTIL = 3
    FAIL_ALLOCATION = 4
    FAIL_ALLOCATION_TIMES = 5
    FAIL_LAUNCH = 6
    LOSE_AT_LAUNCH = 7
    LOST = 8
    REFUSE_PAGE_LOCKING = 9
    COPY_BYTES_PER_SECOND = 10


class ClosedOnExit:
    """An object that is closed at the end of a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what it holds."""
        raise NotImplementedError


class Controls(ClosedOnExit):
    """The controls of all cards of a machine, in a file that its processes share."""

    def __init__(self, path: Path) -> None:
        """Opens the file, and makes it where it is not there yet."""
        size = MOST_CARDS * len(Control) * _CELL.size
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._cells = mmap.mmap(file.fileno(), size)

    def close(self) -> None:
        """Let go of the file; what is set stays."""
        self._cells.close()

    def set(self, control: Control, value: int, card: int = 0) -> None:
        """Processes see it with their next call."""
        _CELL.pack_into(self._cells, self._offset(control, card), value)

    def get(self, control: Control, card: int = 0) -> int:
        """What is set now; numbers that count down are what is left of them."""
        return int(_CELL.unpack_from(self._cells, self._offset(control, card))[0])

    @staticmethod
    def _offset(control: Control, card: int) -> int:
        if not 0 <= card < MOST_CARDS:
            raise ValueError(f"a machine has the cards 0 to {MOST_CARDS - 1}, got {card}")
        return (card * len(Control) + control) * _CELL.size
