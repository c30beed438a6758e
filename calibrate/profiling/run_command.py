"""The modes that run a model, from flags to exit code."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from acestep.cli import console
from acestep.cli.task_options import codes_of, text_of
from acestep.errors import Exit, RunFailedError, UsageError
from acestep.lm.parse import ParseError
from acestep.lm.songwriting import MakeJob, understanding
from acestep.output_file import output_file
from acestep.request import Task, asked_request
from acestep.thinking import Think
from calibrate.files import pretty_json
from calibrate.profiling import asked
from calibrate.profiling.example import load_example
from calibrate.profiling.flags import Mode
from calibrate.profiling.lm_recorder import check_language
from calibrate.profiling.matrix import Axes, as_csv, benchmark, cells
from calibrate.profiling.report import exchanges_text, print_benchmark, print_profile, print_words
from calibrate.profiling.session import Notes, ProfilingSession, machine
from calibrate.profiling.song_profile import ProfileExtras, profile
from calibrate.profiling.words import creating, formatting, write_words
from calibrate.screen import probe_progress


def run_profile(flags: Mapping[str, Any]) -> int:
    """Profile one request."""
    request = asked.profile_request(flags)
    watch = ProfileExtras(warm_up=flags["warm_up"], detailed=flags["detailed"], texts=flags["llm_debug"])
    with output_file(flags["benchmark_output"]) as write:
        session = _session(flags, request.task, as_planned=True)
        try:
            found = profile(session, request, watch)
        except ParseError:
            if watch.texts:
                console.notify(exchanges_text(session.recorder.exchanges()))
            raise
        finally:
            session.close()
        write(pretty_json(found))
    console.answer(found, print_profile, as_json=flags["as_json"])
    return Exit.OK


def run_benchmark(flags: Mapping[str, Any]) -> int:
    """Run the matrix; return 5 if a cell failed, 130 if it was interrupted."""
    axes, song = _axes(flags), asked.song_of(flags)
    with output_file(flags["benchmark_output"]) as write:
        session = _session(flags, Task.TEXT2MUSIC, as_planned=False)
        try:
            tried = cells(song, axes, session.machine.plan, thinks=session.thinks)
            for sentence in dict.fromkeys(sentence for cell in tried for sentence in cell.cuts):
                session.notes(sentence)
            with probe_progress(len(tried)) as advance:
                found = benchmark(session, tried, warm=flags["warm_up"], advance=advance)
        finally:
            session.close()
        write(as_csv(found) if _ending(flags["benchmark_output"]) == ".csv" else pretty_json(found))
    console.answer(found, print_benchmark, as_json=flags["as_json"])
    if not found.complete:
        return Exit.INTERRUPTED
    return Exit.RUN_FAILED if any(row.error for row in found.results) else Exit.OK


def run_words(mode: Mode, flags: Mapping[str, Any]) -> int:
    """Run the language model alone."""
    seed = flags["seed"] or 0
    with output_file(flags["benchmark_output"]) as write:
        found = write_words(
            mode,
            _ask(mode, flags, seed),
            asked.wish_of({**flags, "offload_to_cpu": None, "offload_dit_to_cpu": None}),
            seed=seed,
            temperature=flags["lm_temperature"],
            constrained=flags["constrained"],
            texts=flags["llm_debug"],
            notes=Notes(console.notify),
            progress=console.show_progress,
        )
        write(pretty_json(found))
    console.answer(found, print_words, as_json=flags["as_json"])
    if found.problem:
        raise RunFailedError(found.problem)
    return Exit.OK


def _session(flags: Mapping[str, Any], task: Task, *, as_planned: bool) -> ProfilingSession:
    """Open the model, with a language model if thinking is requested, or if the plan says so and the flags do not."""
    notes = Notes(console.notify)
    at = machine(asked.wish_of(flags), notes)
    think = asked.think_of(flags)
    thinks = at.plan.init_lm if as_planned and think is Think.AS_PLANNED else think is not Think.NO
    if task is not Task.TEXT2MUSIC:
        if think is Think.YES:
            notes(f"Only new songs are planned, and to {task} is to work on one that exists.")
        thinks = False
    if thinks:
        try:
            check_language(at.plan)
        except UsageError as error:
            if think is Think.YES:
                raise
            notes(f"Songs are made without planning: {error}.")
            thinks = False
    return ProfilingSession(at, notes, think=thinks, unasked=think is not Think.YES, constrained=flags["constrained"])


def _ask(mode: Mode, flags: Mapping[str, Any], seed: int) -> MakeJob:
    if mode is Mode.UNDERSTAND:
        codes = flags["audio_codes"]
        return understanding(codes_of(text_of(codes)) if codes else (), seed)
    if mode is Mode.CREATE_SAMPLE:
        return creating(flags["sample_query"], seed, instrumental=flags["instrumental"])
    return formatting(load_example(asked.DEFAULT_EXAMPLE if flags["example"] is None else flags["example"]), seed)


def _axes(flags: Mapping[str, Any]) -> Axes:
    usual = Axes()
    axes = Axes(
        durations_s=flags["duration"] or usual.durations_s,
        batches=flags["batch_size"] or usual.batches,
        thinking=usual.thinking if flags["thinking"] is None else (flags["thinking"],),
        steps=flags["inference_steps"] or usual.steps,
    )
    if 0 in axes.durations_s:
        raise UsageError("a benchmark needs the length of its songs: --duration 0 leaves it open")
    for duration_s, batch, steps in product(axes.durations_s, axes.batches, axes.steps):
        asked_request({"caption": "", "duration_s": duration_s, "batch": batch, "steps": steps})
    return axes


def _ending(path: Path | None) -> str:
    return "" if path is None else path.suffix.lower()
