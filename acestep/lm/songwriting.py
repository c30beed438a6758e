"""The language model without the music model: plans, describes, invents or rewrites a song, as text and codes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch

from acestep.checkpoints import catalog
from acestep.checkpoints.catalog import DUMMY_PREFIX, TINY
from acestep.checkpoints.locate import is_checkpoint
from acestep.checkpoints.tokenizer import encodable
from acestep.devices.base import Device
from acestep.devices.open import open_device, open_here, plan_to_run
from acestep.errors import NotEnoughMemoryError, UsageError, first_line
from acestep.fields import language_of
from acestep.limits.machine import carried_out
from acestep.limits.plan import Plan, clamp
from acestep.lm.job import Job
from acestep.lm.jobs import Description, Planner
from acestep.lm.language import Language, Warn, WrapBackend, not_wrapped
from acestep.lm.metadata import NO_METADATA, Metadata
from acestep.lm.prompts import SongText
from acestep.plain_text import plain_text, song_wish
from acestep.request import Request
from acestep.typed import values_of_user
from acestep.units import Progress, silent

MakeJob = Callable[[Planner], tuple[Job, tuple[str, ...]]]
"""Makes a planner's job, and a warning for each text that was cut."""

RELEASED = "turbo"
"""The name of the model whose language models are the released ones."""


class SongPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A request with all fields filled in, and the audio codes of each of its songs, five for each second.

    A song under 5.12 s has the codes of one of that length.
    """

    request: Request
    codes: tuple[tuple[int, ...], ...]
    warnings: tuple[str, ...] = ()


def open_lm(plan: Plan, model: str, device: Device, warn: Warn, *, wrap: WrapBackend = not_wrapped) -> Language:
    """Open the language model of a plan.

    For the models `tiny` and `dummy` it is a language model of the same kind, for a folder the one next to it. `warn`
    and `wrap` are those of `Language`. Raises `UsageError` if the plan has none and `InvalidInputError` if its weights
    are missing.
    """
    name = language_name(plan, model)
    return Language(
        name,
        plan.knobs,
        device,
        longest_s=plan.longest_planned_s,
        warn=warn,
        wrap=wrap,
        apart=plan.lm_card is not None,
    )


def language_name(plan: Plan, model: str) -> str:
    """Return the name that `load_lm` takes for the plan's language model; raise `UsageError` if the plan has none."""
    if plan.lm is None:
        raise UsageError(f"{without_language(plan)}; name one with --lm, or do without")
    return {"tiny": TINY, "dummy": DUMMY_PREFIX + plan.lm}.get(model) or _beside(model, plan.lm)


def without_language(plan: Plan) -> str:
    """Return the reason why a plan has no language model."""
    return "no language model was chosen" if plan.lm_models else "no language model is certified for this card"


def plan_song(
    request: Request, plan: Plan | None = None, *, model: str = RELEASED, progress: Progress = silent
) -> SongPlan:
    """Plan the songs of a request without making them: return metadata, and the audio codes of each song.

    Runs under `plan`, or this machine's own plan by default. Only a request that thinks may leave the length open.
    Raises `InvalidInputError` if the weights are missing, `UsageError` for an unknown key, tempo or language and for a
    task on an existing song, and `NotEnoughMemoryError` if there is not enough memory.
    """
    request = to_plan(request)
    warnings: list[str] = []
    with _language(plan, model, warnings) as (language, used):
        clamped, cuts = clamp(request, used, lm=True)
        planner = language.planner
        written = language.write(planner.plan_jobs(clamped), progress)
        thought = planner.thought(clamped, written)
        completed = planner.completed(clamped, thought)
        jobs = planner.compose_jobs(clamped, thought, completed.duration_s) if clamped.thinking.codes else ()
        codes = planner.codes(language.write(jobs, progress))
        warnings += [*cuts, *planner.cut_warnings(clamped)]
    return SongPlan(request=completed, codes=codes, warnings=tuple(warnings))


def to_plan(request: Request) -> Request:
    """Return a request with thinking on; raise `UsageError` for a task on an existing song."""
    request = msgspec.structs.replace(request, think=True)
    if not request.thinks:
        raise UsageError(f"only new songs are planned, and to {request.task} is to work on one that exists")
    return request


def understand_song(
    codes: tuple[int, ...],
    plan: Plan | None = None,
    *,
    model: str = RELEASED,
    seed: int = 0,
    progress: Progress = silent,
) -> Description:
    """Describe the song of audio codes; without codes, invent one."""
    return _described(understanding(codes, seed), plan, model, progress)


def understanding(codes: tuple[int, ...], seed: int) -> MakeJob:
    """Return the maker of a job that describes the song of audio codes; without codes it invents one."""

    def ask(planner: Planner) -> tuple[Job, tuple[str, ...]]:
        with values_of_user():
            return planner.understand_job(codes, seed), ()

    return ask


def create_sample(
    query: str,
    plan: Plan | None = None,
    *,
    instrumental: bool = False,
    language: str = "unknown",
    model: str = RELEASED,
    seed: int = 0,
    progress: Progress = silent,
) -> Description:
    """Invent a song in words from a wish such as "a sad song about rain"."""
    # Checked before a model is loaded.
    with values_of_user():
        wish, sung = song_wish(query), language_of(language)
    return _described(
        lambda planner: planner.create_job(wish, instrumental=instrumental, language=sung, seed=seed),
        *(plan, model, progress),
    )


def format_sample(
    caption: str,
    lyrics: str = "",
    plan: Plan | None = None,
    *,
    metadata: Metadata = NO_METADATA,
    model: str = RELEASED,
    seed: int = 0,
    progress: Progress = silent,
) -> Description:
    """Rewrite a caption and lyrics in the form the models were trained with; known `metadata` are kept."""
    with values_of_user():
        text = SongText(caption=plain_text("caption", caption), lyrics=plain_text("lyrics", lyrics))
    found = _described(lambda planner: planner.format_job(text, metadata, seed), plan, model, progress)
    return found if found.lyrics else msgspec.structs.replace(found, lyrics=encodable(text.lyrics))


def _described(asked: MakeJob, plan: Plan | None, model: str, progress: Progress) -> Description:
    """Return the text that a plan's language model writes for a job, with every warning."""
    warnings: list[str] = []
    with _language(plan, model, warnings) as (language, _):
        job, cuts = asked(language.planner)
        return language.planner.description(language.write([job], progress)[0], (*warnings, *cuts))


@contextmanager
def alone(language: Language, flag: str = "--lm") -> Iterator[Language]:
    """Use a language model by itself and close it at the end.

    If it does not fit, the error names `flag` as the option that chooses another model.
    """
    try:
        yield language
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemoryError(
            f"The language model does not fit into the memory that is free ({first_line(error)}). Choose a"
            f" smaller one with {flag}, or close other programs."
        ) from None
    finally:
        language.close()


def warn_of_noise(language: Language, warn: Warn) -> None:
    """Call `warn` if a language model has random weights."""
    if language.is_noise:
        warn(f"The {language.is_noise} language model has random weights: what it writes means nothing.")


@contextmanager
def _language(plan: Plan | None, model: str, warnings: list[str]) -> Iterator[tuple[Language, Plan]]:
    """Open the language model on this machine's device; also return the plan as the device can carry it out."""
    plan = plan or plan_to_run()
    device, card = open_here()
    used = carried_out(plan, card)
    if used.lm_card is not None:
        device, _ = open_device(used.lm_card, current=False)
    warnings += used.warnings
    with alone(open_lm(used, model, device, warnings.append)) as language:
        warn_of_noise(language, warnings.append)
        yield language, used


def _beside(model: str, lm: str) -> str:
    """Return the folder of the language model `lm` inside or next to the model's folder; otherwise `lm`."""
    known = catalog.find(lm)
    if known is not None and catalog.find(model) is None:
        # Absolute, because a relative folder could have the same name as a language model of the catalog.
        folder = Path(model).expanduser().absolute()
        for beside in (folder / known.id, folder.parent / known.id):
            if is_checkpoint(beside):
                return str(beside)
    return lm
