"""`understand`, `create_sample` and `format_sample`: the language model by itself, and how fast it writes."""

import time
from collections.abc import Sequence

import msgspec

from acestep.checkpoints.tokenizer import encodable
from acestep.limits.plan import Plan
from acestep.lm.job import Job
from acestep.lm.jobs import Description, Planner
from acestep.lm.metadata import NO_METADATA, Metadata, wishes
from acestep.lm.parse import ParseError
from acestep.lm.prompts import SongText
from acestep.lm.songwriting import MakeJob, alone
from acestep.request import Request
from acestep.typed import values_of_user
from acestep.units import Progress
from calibrate.profiling.lm_recorder import LmRecorder, check_language
from calibrate.profiling.session import Notes, Wish, machine
from calibrate.profiling.writing import Exchange, WritingPass

WORDS_SCHEMA_VERSION = 1


class WordProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The document: the song in words, as the language model wrote it, and the time of writing.

    If the text is invalid, `problem` says why and the song's fields are empty.
    """

    schema_version: int
    mode: str
    device: str
    model: str
    plan: Plan
    seed: int
    load_seconds: float
    caption: str
    lyrics: str
    bpm: int
    duration_s: int
    keyscale: str
    language: str
    timesignature: str
    problem: str
    language_model: tuple[WritingPass, ...]
    exchanges: tuple[Exchange, ...]
    warnings: tuple[str, ...]


def creating(query: str, seed: int, *, instrumental: bool) -> MakeJob:
    """Return the job that invents a song from a wish."""
    return lambda planner: planner.create_job(query, instrumental=instrumental, language="unknown", seed=seed)


def formatting(song: Request, seed: int) -> MakeJob:
    """Return the job that rewrites a caption and lyrics; the example's tempo, key and length are kept."""
    with values_of_user():
        known: Metadata = wishes(song)
    return lambda planner: planner.format_job(SongText(caption=song.caption, lyrics=song.lyrics), known, seed)


def write_words(
    mode: str,
    ask: MakeJob,
    wish: Wish,
    *,
    seed: int,
    temperature: float | None,
    constrained: bool,
    texts: bool,
    notes: Notes,
    progress: Progress,
) -> WordProfile:
    """Run the language model in a mode, at the default temperature or another, and return what it wrote."""
    started = time.perf_counter()
    at = machine(wish, notes)
    check_language(at.plan)
    recorder = LmRecorder(notes, constrained=constrained)
    with alone(recorder.open(at.plan, at.model, at.device, notes), "--lm-model") as language:
        load_seconds = time.perf_counter() - started
        job, cuts = ask(language.planner)
        for sentence in cuts:
            notes(sentence)
        (tokens,) = language.write([_at_temperature(job, temperature)], progress)
    said, problem = _read(tokens, language.planner)
    known = said.metadata
    return WordProfile(
        schema_version=WORDS_SCHEMA_VERSION,
        mode=mode,
        device=at.card.name,
        model=at.model,
        plan=at.plan,
        seed=seed,
        load_seconds=load_seconds,
        caption=encodable(known.caption),
        lyrics=said.lyrics,
        bpm=known.bpm,
        duration_s=known.duration_s,
        keyscale=known.keyscale,
        language=known.language,
        timesignature=str(known.timesignature),
        problem=problem,
        language_model=recorder.written(),
        exchanges=recorder.exchanges() if texts else (),
        warnings=notes.sentences,
    )


def _read(tokens: Sequence[int], planner: Planner) -> tuple[Description, str]:
    """Return the description in some tokens, or an empty one and the reason."""
    try:
        return planner.description(tokens), ""
    except ParseError as error:
        return Description(metadata=NO_METADATA, lyrics=""), str(error)


def _at_temperature(job: Job, temperature: float | None) -> Job:
    if temperature is None:
        return job
    with values_of_user():
        return msgspec.structs.replace(job, sampling=msgspec.structs.replace(job.sampling, temperature=temperature))
