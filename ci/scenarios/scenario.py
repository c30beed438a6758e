"""A scenario: requests that come by one entry point, one after another, and what came of them."""

from enum import StrEnum
from typing import Final

import msgspec

from acestep.knobs import Knobs, Variant

BETWEEN: Final = "between"
"""Stands for the stage where none has begun, or the last has ended."""


StagePeaks = dict[str, dict[str, int]]
"""The most bytes on the card in each stage, by owner."""


class EntryPoint(StrEnum):
    """How a request reaches the pipeline; each has code of its own."""

    COMMAND = "command"
    PYTHON = "Python"
    PAGE = "page"
    SERVER = "server"


class RequestKind(StrEnum):
    """What is asked for: new songs, songs that are stopped, or a recording in words, which reads its codes first.

    Others are songs with no option as it is by default, a cover of a recording, and a part of one made again.
    """

    SONGS = "songs"
    OTHERWISE = "otherwise"
    COVER = "cover"
    REPAINT = "repaint"
    STOPPED = "stopped"
    WORDS = "words"


class ScenarioRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a scenario. In words, it is about a recording of `duration_s`."""

    batch: int
    duration_s: float
    think: bool = False
    lyrics: str = "la la"
    language: str = "en"
    kind: RequestKind = RequestKind.SONGS


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to one program, which keeps its model between them; each command is a program of its own.

    The card is of `card_gib`, and `free_bytes` of it are free. `limited` puts low limits into the table, so that
    requests have to be cut to them.
    """

    name: str
    entry: EntryPoint
    card_gib: float
    free_bytes: int
    requests: tuple[ScenarioRequest, ...]
    variant: Variant = Variant.TURBO
    limited: bool = False


class ServiceCall(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one call of the service, and what the card saw of it.

    `what` is "songs", "codes" or "words"; `batch` and `duration_s` are what was granted of songs. Before the call,
    `held_bytes` were on the card, and `host_bytes` in tensors and arrays of main memory. `stages` are the most bytes on
    the card in each, by owner; what is in no stage is in "between". `refusals` are allocations that the card refused.
    `duration_s` is that of the shortest song, `thought_per_pass` the number of songs that were thought of at once.
    `stages_before` and what is refused there are of the time since the last call.
    """

    what: str
    held_bytes: int
    host_bytes: int
    stages: StagePeaks
    refusals: int
    stages_before: StagePeaks = {}
    batch: int = 0
    duration_s: float = 0.0
    songs_per_pass: int = 0
    thought_per_pass: int = 0
    decode_path: str = ""
    knobs: Knobs | None = None


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a scenario.

    When the last program ends, `held_bytes` are on the card and `host_bytes` in main memory; `left_bytes` are on the
    card afterwards. `models` and `language_models` were loaded. `offers` are the most that can be asked for, where the
    entry point says so. `called` are the replaced places of the code that were called, but those of threads.
    `stages_after` are of the time since the last call.
    """

    made: tuple[ServiceCall, ...]
    held_bytes: int
    host_bytes: int
    left_bytes: int
    models: int
    language_models: int
    offers: dict[str, int] = {}
    called: tuple[str, ...] = ()
    stages_after: StagePeaks = {}
