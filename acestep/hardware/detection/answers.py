"""The answer of a source about the cards of this machine. A source never fails: its problems are part of the answer."""

from enum import StrEnum

import msgspec

from acestep.hardware.card import Card
from acestep.units import gib


class Source(StrEnum):
    """The sources of information about cards."""

    NVML = "NVML"
    NVIDIA_FILES = "NVIDIA system files"
    DRM = "Linux system files"
    APPLE = "macOS"
    TORCH = "torch"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem of a source. A `serious` one is shown before every run, any other only by doctor."""

    sentence: str
    advice: str = ""
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}".strip()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One source's answer: the visible cards in the order of their indices, the hidden ones, and every problem.

    `asked` says what was examined. A card whose size the source does not know has 0 bytes. `lost` counts cards that the
    source knows to be broken. `driver_cuda` is the newest CUDA version that the driver supports, such as (12, 4); (0,
    0) if the source does not know it.
    """

    source: Source
    asked: str
    cards: tuple[Card, ...] = ()
    hidden: tuple[Card, ...] = ()
    problems: tuple[Problem, ...] = ()
    lost: int = 0
    driver_cuda: tuple[int, int] = (0, 0)

    @property
    def heard(self) -> str:
        """The answer in one line."""
        parts = [f"{len(self.cards)} visible: {', '.join(map(named, self.cards))}"] if self.cards else []
        if self.hidden:
            parts.append(f"{len(self.hidden)} hidden: {', '.join(map(named, self.hidden))}")
        parts += [problem.sentence for problem in self.problems]
        return "; ".join(parts) or "no card"


def named(card: Card) -> str:
    """A card's name, size and identity, enough to distinguish cards."""
    size = gib(card.total_bytes) if card.total_bytes else "size unknown"
    shared = " shared with the machine" if card.unified else ""
    identity = f", {card.uuid}" if card.uuid else ""
    return f"{card.name} ({size}{shared}{identity})"


def one_line(text: str) -> str:
    """Return a text of a driver without control characters, which would change what a terminal shows."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
