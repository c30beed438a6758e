"""How a language model plans a song: what it may decide, and how tokens are sampled."""

from enum import Enum

import msgspec

from acestep.automatic import drawn_seed
from acestep.fields import LONGEST_PLAN_S, SHORTEST_PLAN_S
from acestep.plain_text import plain_text
from acestep.typed import take_types

NO_NEGATIVE = "NO USER INPUT"
"""The text for "nothing" in a slot of the language model's prompts, as in training."""

LONGEST_PROMPT_TOKENS = 3_200
"""The longest prompt of a language model in its tokens: instruction, caption, lyrics and metadata."""


class Think(Enum):
    """Whether a language model plans the songs: as the card's plan says, or as the user says."""

    AS_PLANNED = "as planned"
    YES = "yes"
    NO = "no"


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value}")


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn; the order of the steps is that of `acestep.lm.sampling`.

    A `temperature` of 0 takes the most likely token. A `top_k` of 0 disables top-k, a `top_p` of 1 disables top-p, a
    `repetition_penalty` of 1 and a `guidance` of 1 disable these. Raises `ValueError` naming the field.
    """

    temperature: float = 0.85
    top_k: int = 0
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    guidance: float = 2.0

    def __post_init__(self) -> None:
        take_types(self)
        _within("temperature", self.temperature, 0, 2)
        _within("top_k", self.top_k, 0, 1_000_000)
        _within("top_p", self.top_p, 1e-6, 1)
        _within("repetition_penalty", self.repetition_penalty, 1, 2)
        _within("guidance", self.guidance, 1, 30)


class Thinking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the language model decides about a song.

    `metas` lets it choose tempo, key, time signature and length if the request leaves them open, `caption` lets it
    reword the caption and `language` set the language of the lyrics. `codes` lets it write the audio codes that the DiT
    follows; otherwise it only fills in the metadata.

    All songs of a request share one plan, drawn with `seed`, so that a song is the same alone and in a batch; its codes
    are drawn with the song's own seed. Only the codes are drawn with guidance; `negative` is its negative prompt. A
    plan is never longer than `longest_s` seconds.

    A `planned_caption` says that there is a plan already: this caption, and the metadata of the request. Then nothing
    is decided again, and only the codes are written. Raises `ValueError` naming the field.
    """

    metas: bool = True
    caption: bool = True
    language: bool = True
    codes: bool = True
    sampling: Sampling = Sampling()
    negative: str = NO_NEGATIVE
    seed: int = 0
    longest_s: int = LONGEST_PLAN_S
    planned_caption: str = ""

    def __post_init__(self) -> None:
        take_types(self)
        msgspec.structs.force_setattr(self, "seed", drawn_seed(self.seed))
        msgspec.structs.force_setattr(self, "negative", plain_text("negative prompt", self.negative))
        msgspec.structs.force_setattr(self, "planned_caption", plain_text("planned caption", self.planned_caption))
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"thinking seed must be 0 to {2**32 - 1}, got {self.seed}")
        if not SHORTEST_PLAN_S <= self.longest_s <= LONGEST_PLAN_S:
            raise ValueError(f"longest_s must be {SHORTEST_PLAN_S} to {LONGEST_PLAN_S} seconds, got {self.longest_s}")
