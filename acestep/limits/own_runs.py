"""How long the user's own runs took, beside what was estimated: a small file that corrects the estimate.

Kept in the folder of checkpoints. Only ratios are kept, no caption, no time of day, no path.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec

from acestep.checkpoints.catalog import checkpoints_dir
from acestep.errors import AceStepError, InvalidInputError
from acestep.knobs import Variant
from acestep.limits.plan import Plan
from acestep.limits.song_time import NO_RUNS, OwnRatios, base_of, cards_of, stages_at, thinking_of, times_of
from acestep.output_file import output_file
from acestep.request import Request
from acestep.result import Result
from acestep.song import DecodePath
from acestep.song_times import TierTimes
from acestep.stage import Stage
from acestep.strict_json import read_as
from acestep.task import Task
from acestep.tiers import tiers_here
from acestep.units import ceil_div

OWN_TIMES_FILE: Final = "own_times.json"

MOST_RUNS, MOST_ENTRIES = 9, 24
"""Runs of a stage, and pairs of card and variant, that are kept: the newest."""

LEAST_RATIO, MOST_RATIO = 0.02, 500.0
"""A ratio beyond these says that something else was timed, such as a download."""

_LOG = logging.getLogger(__name__)

_Ratio = Annotated[float, msgspec.Meta(ge=LEAST_RATIO, le=MOST_RATIO)]
_Ratios = Annotated[tuple[_Ratio, ...], msgspec.Meta(max_length=MOST_RUNS)]


class OwnRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last runs of a variant on a card: seconds over the estimate `made_from`, by stage, the newest last."""

    card: Annotated[str, msgspec.Meta(max_length=200)]
    variant: Variant
    made_from: str
    ratios: dict[Stage, _Ratios]


class OwnTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    runs: Annotated[tuple[OwnRuns, ...], msgspec.Meta(max_length=MOST_ENTRIES)] = ()


def own_times(folder: Path) -> tuple[OwnTimes, str]:
    """Return the own times in a folder, and a sentence where there is a file that cannot be used."""
    path = folder / OWN_TIMES_FILE
    if not path.exists():
        return OwnTimes(), ""
    try:
        return read_as(path, OwnTimes), ""
    except InvalidInputError:
        return OwnTimes(), (
            f"The times of your own runs in {path} cannot be read, so they are left out; the next song replaces them."
        )


def ratios_for(plan: Plan, tier: TierTimes | None, own: OwnTimes) -> OwnRatios:
    """Return the ratios of own runs that the times of a plan's tier can be corrected by."""
    found = (runs.ratios for runs in own.runs if tier is not None and _key(runs) == _key_of(plan, tier))
    return next(found, NO_RUNS)


def own_ratios(plan: Plan) -> tuple[OwnRatios, str]:
    """Return what own runs on this machine say about a plan, and a sentence where their file cannot be used."""
    own, problem = own_times(checkpoints_dir())
    return ratios_for(plan, times_of(plan, known_times(plan)), own), problem


def known_times(plan: Plan) -> Mapping[str, TierTimes]:
    """Return the times in force of a plan's variant, by tier."""
    table = tiers_here().variants.get(plan.variant)
    return {} if table is None else table.times


def ratios_of(plan: Plan, tier: TierTimes | None, asked: Request, result: Result) -> dict[Stage, float]:
    """Return how long each stage of a run took, over the estimate; empty where there is none for such a run.

    The estimate is for one song: the stages after thinking are repeated for each, and thinking for each pass.
    """
    cards = cards_of(plan, tier)
    plain = asked.task is Task.TEXT2MUSIC and asked.reference_audio is None
    if not cards or not plain or result.decode_path is DecodePath.CPU or not result.songs:
        return {}
    base, songs = base_of(cards), len(result.songs)
    likely = stages_at(base, result.request.duration_s, thinking_of(plan, base))
    ratios = {}
    for stage in result.stages:
        thinks = stage.name == Stage.THINK
        otherwise = (thinks and not asked.thinking.codes) or (stage.name == Stage.DENOISE and asked.steps)
        if stage.name not in likely or otherwise:
            continue
        repeats = ceil_div(songs, max(1, stage.songs_per_pass)) if thinks else songs
        if stage.name == Stage.ENCODE:
            repeats = 1
        ratio = stage.seconds / max(likely[Stage(stage.name)] * repeats, 1e-6)
        if LEAST_RATIO <= ratio <= MOST_RATIO:
            ratios[Stage(stage.name)] = round(ratio, 4)
    return ratios


def with_run(own: OwnTimes, plan: Plan, tier: TierTimes, ratios: Mapping[Stage, float]) -> OwnTimes:
    """Return own times with one more run; the oldest runs and entries are dropped."""
    key = _key_of(plan, tier)
    before = next((runs.ratios for runs in own.runs if _key(runs) == key), {})
    now = {stage: (*before.get(stage, ()), ratio)[-MOST_RUNS:] for stage, ratio in ratios.items()}
    # An estimate of the same card and variant that was made from something else is replaced.
    rest = [runs for runs in own.runs if (runs.card, runs.variant) != key[:2]]
    entry = OwnRuns(card=key[0], variant=key[1], made_from=key[2], ratios={**before, **now})
    return OwnTimes(runs=(*rest, entry)[-MOST_ENTRIES:])


def keep_own_run(plan: Plan, asked: Request, result: Result) -> None:
    """Add a run to the file of own times, if there is an estimate for it and a folder of checkpoints.

    A run on another card than the planned one teaches nothing about either. A file that cannot be written changes
    nothing about the songs, so it is only logged.
    """
    folder, tier = checkpoints_dir(), times_of(plan, known_times(plan))
    ratios = ratios_of(plan, tier, asked, result)
    if tier is None or not ratios or plan.card.imagined or not folder.is_dir():
        return
    own, _ = own_times(folder)
    with suppress(AceStepError), output_file(folder / OWN_TIMES_FILE) as write:
        write(msgspec.json.encode(with_run(own, plan, tier, ratios)).decode())
        return
    _LOG.info("the times of this run could not be kept in %s", folder)


def _key(runs: OwnRuns) -> tuple[str, Variant, str]:
    return runs.card, runs.variant, runs.made_from


def _key_of(plan: Plan, tier: TierTimes) -> tuple[str, Variant, str]:
    return plan.card.name[:200], plan.variant, tier.made_from
