"""How a language model is to plan a song: what it may decide, and how it draws."""

from enum import Enum

import msgspec

from acestep.automatic import drawn_seed
from acestep.planner.fields import LONGEST_PLAN_S, SHORTEST_PLAN_S
from acestep.planner.job import Sampling

NO_NEGATIVE = "NO USER INPUT"
"""What stands for "nothing" in a slot of the language model's prompts, as in training."""


class Think(Enum):
    """Whether a language model is to plan the songs: as the card's plan says, or as a person does."""

    AS_PLANNED = "as planned"
    YES = "yes"
    NO = "no"


class Thinking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the language model decides of a song.

    `metas` lets it choose tempo, key, time signature and length where the request leaves them open, `caption` lets it
    reword the caption and `language` name the language of the lyrics. `codes` lets it write the audio codes that the
    DiT follows; without, it only fills in the metadata.

    All songs of a request share one plan, drawn with `seed`, so that a song is the same alone and in a batch; its codes
    are drawn with the song's own seed. `negative` is what guidance leads away from. A plan is never longer than
    `longest_s` seconds. `open_turn` lets the codes follow a turn that is still open, where the original closes it.
    Raises `ValueError` naming the field.
    """

    metas: bool = True
    caption: bool = True
    language: bool = True
    codes: bool = True
    sampling: Sampling = Sampling()
    negative: str = NO_NEGATIVE
    seed: int = 0
    longest_s: int = LONGEST_PLAN_S
    open_turn: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "seed", drawn_seed(self.seed))
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"thinking seed must be 0 to {2**32 - 1}, got {self.seed}")
        if not SHORTEST_PLAN_S <= self.longest_s <= LONGEST_PLAN_S:
            raise ValueError(f"longest_s must be {SHORTEST_PLAN_S} to {LONGEST_PLAN_S} seconds, got {self.longest_s}")
