"""`profile`: one request, and the time of each of its parts."""

import cProfile
import time
from pathlib import Path
from typing import Any

import msgspec

from acestep.limits.plan import Plan, clamp
from acestep.request import DecodePath, Request
from acestep.result import Result
from acestep.stage import StageReport
from acestep.units import ceil_div
from calibrate.profiling.clock import StepClock
from calibrate.profiling.session import ProfilingSession
from calibrate.profiling.writing import Exchange, WritingPass

PROFILE_SCHEMA_VERSION = 1

MOST_FUNCTIONS = 25
"""Rows of the table of functions."""


class ProfiledRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request after the plan's limits; `steps` are those really taken."""

    task: str
    duration_s: float
    batch: int
    steps: int
    seed: int
    thinks: bool


class FunctionTime(msgspec.Struct, frozen=True, kw_only=True):
    """A Python function under cProfile: its own seconds, and those including the functions it called."""

    name: str
    calls: int
    own_seconds: float
    total_seconds: float


class SongProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The document. `warm_up_seconds` is 0 without a warm-up; `step_seconds` are those of all passes, in order."""

    schema_version: int
    mode: str
    device: str
    model: str
    plan: Plan
    request: ProfiledRequest
    load_seconds: float
    warm_up_seconds: float
    seconds: float
    music_per_second: float
    songs_per_pass: int
    decode_path: DecodePath
    stages: tuple[StageReport, ...]
    step_seconds: tuple[float, ...]
    language_model: tuple[WritingPass, ...]
    exchanges: tuple[Exchange, ...]
    functions: tuple[FunctionTime, ...]
    warnings: tuple[str, ...]


class ProfileExtras(msgspec.Struct, frozen=True, kw_only=True):
    """Additional work: a warm-up run, a table of functions, the language model's texts."""

    warm_up: bool = True
    detailed: bool = False
    texts: bool = False


def profile(session: ProfilingSession, request: Request, watch: ProfileExtras) -> SongProfile:
    """Make the songs of a request within the plan's limits, and return where the time went."""
    plan = session.machine.plan
    request = msgspec.structs.replace(request, think=request.think and session.thinks)
    clamped, cuts = clamp(request, plan, lm=request.thinks)
    for sentence in cuts:
        session.notes(sentence)
    warm_up_seconds = warm_up(session, clamped) if watch.warm_up else 0.0
    session.recorder.passes.clear()
    clock = StepClock(session.machine.device)
    started = time.perf_counter()
    result = session.generate(clamped, clock)
    seconds = time.perf_counter() - started
    # Before the same songs are made once more for the table of functions.
    written, texts = session.recorder.written(), session.recorder.exchanges() if watch.texts else ()
    for sentence in result.warnings:
        session.notes(sentence)
    steps = clock.step_seconds(result.stages)
    return SongProfile(
        schema_version=PROFILE_SCHEMA_VERSION,
        mode="profile",
        device=session.machine.card.name,
        model=session.machine.model,
        plan=plan,
        request=_asked(clamped, result, len(steps)),
        load_seconds=session.load_seconds,
        warm_up_seconds=warm_up_seconds,
        seconds=seconds,
        music_per_second=result.request.batch * result.request.duration_s / seconds,
        songs_per_pass=result.songs_per_pass,
        decode_path=result.decode_path,
        stages=result.stages,
        step_seconds=steps,
        language_model=written,
        exchanges=texts,
        functions=_functions(session, clamped) if watch.detailed else (),
        warnings=session.notes.sentences,
    )


def warm_up(session: ProfilingSession, request: Request) -> float:
    """Run a request with a single step, so that one-time work is done; return the seconds it took."""
    started = time.perf_counter()
    session.generate(msgspec.structs.replace(request, steps=1))
    return time.perf_counter() - started


def _asked(clamped: Request, result: Result, steps_taken: int) -> ProfiledRequest:
    made = result.request
    passes = ceil_div(made.batch, result.songs_per_pass)
    return ProfiledRequest(
        task=clamped.task,
        duration_s=made.duration_s,
        batch=made.batch,
        steps=steps_taken // passes,
        seed=made.seed,
        thinks=clamped.thinks,
    )


def _functions(session: ProfilingSession, request: Request) -> tuple[FunctionTime, ...]:
    """Return where another run of the same request spends its time in Python, largest share first."""
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        session.generate(request)
    finally:
        profiler.disable()
    rows = sorted(profiler.getstats(), key=lambda entry: -entry.inlinetime)
    return tuple(_function(entry) for entry in rows[:MOST_FUNCTIONS])


def _function(entry: Any) -> FunctionTime:
    code = entry.code
    # Functions that are not written in Python have a name and no code.
    name = code if isinstance(code, str) else f"{_shortened(code.co_filename)}:{code.co_firstlineno} {code.co_qualname}"
    return FunctionTime(name=name, calls=entry.callcount, own_seconds=entry.inlinetime, total_seconds=entry.totaltime)


def _shortened(file: str) -> str:
    """Return the last parts of a path: the package and the module."""
    return "/".join(Path(file).parts[-3:])
