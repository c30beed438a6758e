"""What a visitor may choose among the adapters of the command line: all, one of them, or none."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from acestep.adapters.choice import Adapter
from acestep.adapters.source import digest_of, source_of
from acestep.errors import InvalidInputError, UsageError
from acestep.fused_adapter import FusedAdapter
from acestep.ui.settings import NONE

_ALL: Final = "all"
"""The choice for several together."""


class AdapterChoices:
    """The adapters of each choice."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self._of = _choices_of(tuple(adapters))

    @property
    def names(self) -> tuple[str, ...]:
        """The choices; the first is all adapters, the last none."""
        return tuple(self._of)

    def chosen(self, choice: str) -> tuple[Adapter, ...]:
        """Return the adapters of a choice, "" for the first; raise `UsageError` for an unknown one."""
        choice = choice or self.names[0]
        if choice not in self._of:
            raise UsageError(f"adapter must be one of {', '.join(self.names)}, got {choice!r}")
        return self._of[choice]

    def like(self, song: Sequence[FusedAdapter]) -> str | None:
        """Return the choice with the weights and the scales of a song's adapters; None if there is none."""
        wanted = sorted((one.digest, one.scale) for one in song)
        for choice, adapters in self._of.items():
            if len(adapters) == len(wanted) and sorted((_digest(one.path), one.scale) for one in adapters) == wanted:
                return choice
        return None


def _choices_of(adapters: tuple[Adapter, ...]) -> dict[str, tuple[Adapter, ...]]:
    if not adapters:
        return {NONE: ()}
    named = [f"{one.name}:{one.scale:g}" for one in adapters]
    every = named[0] if len(adapters) == 1 else _ALL
    one_each = {
        f"{name} ({n})" if name in named[:n] else name: (one,)
        for n, (name, one) in enumerate(zip(named, adapters, strict=True))
    }
    return {every: adapters} | one_each | {NONE: ()}


def _digest(path: Path) -> str:
    """The digest of the weights at a path as they are now; "" if they cannot be read."""
    try:
        weights = source_of(path).weights
        seen = weights.stat()
        return _digest_of_version(weights, seen.st_size, seen.st_mtime_ns)
    except (InvalidInputError, OSError):
        return ""


@lru_cache(maxsize=64)
def _digest_of_version(weights: Path, _size: int, _changed_ns: int) -> str:
    """The digest of a version of a file: to read one of a gigabyte takes seconds."""
    return digest_of(weights)
