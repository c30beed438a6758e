"""The thinking stage: the language model fills in what a request leaves open and writes the songs' audio codes."""

from collections.abc import Mapping
from typing import Protocol

import msgspec
from torch import nn

from acestep.dit.place import StageContext
from acestep.errors import UsageError
from acestep.request import Request, SongCodes
from acestep.units import Progress


class Thought(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The result of thinking: the completed `request`, and audio `codes` for each of its songs, or none.

    `songs_per_pass` songs were written in one pass.
    """

    request: Request
    codes: SongCodes | None = None
    songs_per_pass: int = 1
    warnings: tuple[str, ...] = ()


class Thinker(Protocol):
    """Plans songs; `acestep.lm.thinker` implements it with a language model."""

    def modules(self) -> Mapping[str, nn.Module]:
        """The parts that are placed together with those of the pipeline, by name."""
        ...

    def think(self, request: Request, place: StageContext, progress: Progress) -> Thought:
        """Return the completed request and codes for a request whose `thinks` is true.

        After the call, only parts that stay resident remain on the device. Raises `torch.OutOfMemoryError` when not
        even one song fits.
        """
        ...

    def close(self) -> None:
        """Free what is on the device and not among `modules`."""
        ...


class UnableToThink:
    """The thinker used when no language model is loaded."""

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def think(self, request: Request, place: StageContext, progress: Progress) -> Thought:  # noqa: ARG002 as in the protocol
        raise UsageError("a request to think needs a language model and none is loaded; choose one, or leave think off")

    def close(self) -> None:
        """Nothing to give back."""
