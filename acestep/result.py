"""The result of the pipeline."""

import msgspec

from acestep.fused_adapter import FusedAdapter
from acestep.request import Request
from acestep.song import DecodePath, Song
from acestep.stage import StageReport


class Result(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The result of `Pipeline.generate`: the songs in seed order and how they were made.

    `request` is what was carried out: open fields are filled in, by the language model if it thought.
    `adapters` are those that the weights had.
    """

    request: Request
    songs: tuple[Song, ...]
    stages: tuple[StageReport, ...]
    songs_per_pass: int
    decode_path: DecodePath
    warnings: tuple[str, ...]
    adapters: tuple[FusedAdapter, ...] = ()
