"""The commands besides songs: codes of a recording, and words by the language model (understand, sample, format)."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from msgspec import to_builtins

from acestep.automatic import AUTOMATIC, drawn_seed
from acestep.checkpoints.catalog import SIZES, checkpoints_dir
from acestep.checkpoints.locate import require, require_lm
from acestep.cli import console, show
from acestep.cli.options import (
    device_option,
    in_flags,
    json_option,
    knob_options,
    knobs_of,
    knobs_with,
    refuse_empty,
    with_options,
)
from acestep.cli.task_options import AUDIO_FILE, codes_of, recording_from_options, text_of
from acestep.clip import FRAMES_A_SECOND
from acestep.errors import UsageError
from acestep.fields import UNKNOWN_LANGUAGE, language_of
from acestep.importing import lasting_imports
from acestep.limits.machine import plan_here
from acestep.limits.of_model import of_model
from acestep.limits.plan import Plan
from acestep.output_file import output_file
from acestep.plain_text import song_wish
from acestep.request import CODE_FRAMES, MAX_SEED
from acestep.typed import values_of_user

_shared = with_options(
    click.option(
        "--seed",
        type=click.IntRange(AUTOMATIC, MAX_SEED),
        metavar="N",
        help="Random seed of the words; drawn if not given or -1.",
    ),
    click.option(
        "--model",
        type=click.Choice(["turbo", "tiny", "dummy"]),
        default="turbo",
        show_default=True,
        help="Real weights or noise.",
    ),
    device_option,
    knob_options,
    json_option,
)


@click.command()
@click.option("--audio-codes", metavar="TEXT|@FILE", help="Audio codes; without them a song is invented.")
@click.option("--src-audio", type=AUDIO_FILE, metavar="FILE", help="A recording to describe instead of codes.")
@_shared
def understand_command(audio_codes: str | None, src_audio: Path | None, **rest: Any) -> None:
    """Describe a recording or audio codes in words: caption, lyrics, tempo, key and length."""
    if audio_codes is not None and src_audio is not None:
        raise UsageError("choose one of --audio-codes and --src-audio")
    song: Any = () if audio_codes is None else codes_of(text_of(audio_codes))
    if src_audio is not None:
        song = recording_from_options(src_audio)
        require(rest["model"], checkpoints_dir())
    _say(rest, lambda plan, **more: _api().understand(song, plan, **more))


@click.command()
@click.argument("file", type=AUDIO_FILE)
@click.option("--model", default="turbo", show_default=True, metavar="ID|DIR|tiny|dummy", help="Which weights.")
@click.option("--out", type=AUDIO_FILE, metavar="FILE", help="Output file; stdout if not given.")
@device_option
@knob_options
@json_option
def codes(file: Path, model: str, out: Path | None, as_json: bool, **rest: Any) -> None:
    """Write the audio codes of a recording, five a second, as --audio-codes @FILE reads them."""
    refuse_empty(model=model)
    with suppress(OSError):  # one of them does not exist
        if out is not None and out.samefile(file):
            raise UsageError(f"--out {out} is the recording itself; choose another file")
    warnings = list[str]()

    def warn(sentence: str) -> None:
        warnings.append(sentence)
        console.notify(sentence)

    from acestep.dit.prompts import codes_text

    with output_file(out) as write:
        overrides, clip = knobs_with(model, rest), recording_from_options(file)
        require(model, checkpoints_dir())
        api = _api()
        plan = api.plan_to_run(of_model(model, overrides))
        found = api.audio_codes(clip, plan, model=model, notify=warn, progress=console.show_progress)
        text = codes_text(found)
        write(f"{text}\n")
    document = {
        "codes": found,
        "count": len(found),
        "codes_per_second": FRAMES_A_SECOND // CODE_FRAMES,
        "duration_s": clip.duration_s,
        "path": None if out is None else str(out),
        "warnings": warnings,
    }
    if as_json:
        console.print_json(document)
    elif out is None:
        click.echo(text)
    else:
        console.notify(f"{len(found)} codes for {clip.duration_s:.1f} s of sound are in {out}.")


@click.command()
@click.argument("query")
@click.option("--instrumental", is_flag=True, help="A song without vocals.")
@click.option("--language", default="unknown", metavar="CODE", help="Language of the lyrics, such as en or ko.")
@_shared
def sample(query: str, instrumental: bool, language: str, **rest: Any) -> None:
    """Invent a song from a wish, such as "a sad song about rain"."""
    with values_of_user():
        # Checked before torch is imported, which takes seconds.
        query, language = song_wish(query), language_of(language) or UNKNOWN_LANGUAGE
    _say(
        rest,
        lambda plan, **more: _songwriting().create_sample(
            query, plan, instrumental=instrumental, language=language, **more
        ),
    )


@click.command(name="format")
@click.option("--caption", required=True, metavar="TEXT", help="Description of the music.")
@click.option("--lyrics", default="", metavar="TEXT|@FILE", help="The words; @FILE reads them from a file.")
@click.option("--bpm", default=0, metavar="N", help="Beats per minute; 0 leaves it open.")
@click.option("--keyscale", default="", metavar="TEXT", help='Key, such as "C major".')
@click.option("--timesignature", default="", metavar="TEXT", help="Time signature, such as 4.")
@click.option("--language", default="", metavar="CODE", help="Language of the lyrics, such as en or ko.")
@click.option("--duration", "duration_s", default=0, metavar="SECONDS", help="Length of the song; 0 leaves it open.")
@_shared
def format_words(
    caption: str, lyrics: str, bpm: int, keyscale: str, timesignature: str, language: str, duration_s: int, **rest: Any
) -> None:
    """Bring a caption and lyrics into the form the models were trained with."""
    from acestep.lm.metadata import Metadata

    try:
        known = Metadata(
            bpm=bpm, keyscale=keyscale, timesignature=timesignature, language=language, duration_s=duration_s
        )
    except ValueError as error:
        raise UsageError(in_flags(str(error), {"bpm": "--bpm", "duration_s": "--duration"})) from None
    words = text_of(lyrics)
    _say(rest, lambda plan, **more: _songwriting().format_sample(caption, words, plan, metadata=known, **more))


def _api() -> Any:
    with lasting_imports():
        from acestep import api

    return api


def _songwriting() -> Any:
    with lasting_imports():
        from acestep.lm import songwriting

    return songwriting


def _say(rest: dict[str, Any], describe: Callable[..., Any]) -> None:
    as_json, seed, model = (rest.pop(name) for name in ("as_json", "seed", "model"))
    knobs = knobs_of(rest)
    drawn = drawn_seed(AUTOMATIC if seed is None else seed)
    if model not in SIZES and (lm := plan_here(knobs).lm) is not None:
        # Missing or damaged weights are reported before torch is imported, which takes seconds.
        require_lm(lm, checkpoints_dir())
    plan: Plan = _songwriting().plan_to_run(knobs)
    found = describe(plan, model=model, seed=drawn, progress=console.show_progress)
    for sentence in found.warnings:
        console.notify(sentence)
    document = {**to_builtins(found.metadata), "lyrics": found.lyrics, "seed": drawn, "warnings": list(found.warnings)}
    console.answer(document, lambda document: click.echo(show.description_text(document)), as_json=as_json)
