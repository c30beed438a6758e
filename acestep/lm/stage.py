"""Words to a plan: the language model fills in what a request leaves open and writes the songs' audio codes."""

from collections.abc import Mapping
from typing import Protocol

import msgspec
from torch import nn

from acestep.dit.place import StageContext
from acestep.errors import UsageError
from acestep.request import Request, SongCodes
from acestep.units import Progress


class Thought(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What thinking made of a request: the `request` completed, and audio `codes` for each of its songs, or none.

    `songs_per_pass` songs were written at once.
    """

    request: Request
    codes: SongCodes = ()
    songs_per_pass: int = 1
    warnings: tuple[str, ...] = ()


class Thinker(Protocol):
    """Plans songs; `acestep.lm.jobs` does it with a language model."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Its parts that are placed with those of the pipeline, by name."""
        ...

    def think(self, request: Request, place: StageContext, progress: Progress) -> Thought:
        """The plan of a request whose `thinks` is true; nothing of it stays on the device that does not rest there.

        Raises `torch.OutOfMemoryError` when not even one song fits.
        """
        ...

    def close(self) -> None:
        """Give back what is on the device and not among `modules`."""
        ...


class UnableToThink:
    """Stands where there is no language model."""

    def modules(self) -> Mapping[str, nn.Module]:
        """None."""
        return {}

    def think(self, request: Request, place: StageContext, progress: Progress) -> Thought:  # noqa: ARG002 as in the protocol
        """Raise `UsageError`."""
        raise UsageError("a request to think needs a language model and none is loaded; choose one, or leave think off")

    def close(self) -> None:
        """Nothing to give back."""
