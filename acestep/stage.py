"""The stages of a run, and what one of them took."""

from enum import StrEnum
from typing import Annotated, Self

import msgspec

_Bytes = Annotated[int, msgspec.Meta(ge=0)]


class Stage(StrEnum):
    """The stages in the order in which they run."""

    THINK = "think"
    ENCODE_AUDIO = "encode_audio"
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


class StageReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cost of one stage: seconds, and the most bytes that were allocated and reserved during it (0: not counted).

    `name` is that of a `Stage`; a file written by another release may name another.
    """

    name: str
    seconds: float
    songs_per_pass: int
    peak_allocated_bytes: _Bytes
    peak_reserved_bytes: _Bytes

    def with_repeat(self, later: Self) -> Self:
        """Return the report of both runs of a stage: the sum of the seconds, and the maximum of everything else."""
        highest = {
            field: max(getattr(self, field), getattr(later, field))
            for field in self.__struct_fields__
            if field not in ("name", "seconds")
        }
        return msgspec.structs.replace(self, seconds=self.seconds + later.seconds, **highest)
