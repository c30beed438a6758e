"""The commands that use the language model by itself: understand, sample, format."""

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import click
from msgspec import to_builtins

from acestep import console, show
from acestep.errors import UsageError
from acestep.machine import plan_here
from acestep.models.catalog import SIZES, checkpoints_dir
from acestep.models.locate import require_lm
from acestep.options import device_option, knob_options, knobs_of
from acestep.plan import Plan
from acestep.request import MAX_SEED
from acestep.task_options import codes_of, text_of

F = TypeVar("F", bound=Callable[..., Any])

_SHARED = (
    click.option(
        "--seed",
        type=click.IntRange(0, MAX_SEED),
        metavar="N",
        help="What the words are drawn with, random if not given.",
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
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)


def _shared(command: F) -> F:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command()
@click.option("--audio-codes", default="", metavar="TEXT|@FILE", help="Audio codes; without them a song is made up.")
@_shared
def understand(audio_codes: str, **rest: Any) -> None:
    """Describe audio codes in words: caption, lyrics, tempo, key and length."""
    codes = codes_of(text_of(audio_codes)) if audio_codes else ()
    _say(rest, lambda plan, **more: _songwriting().understand(codes, plan, **more))


@click.command()
@click.argument("query")
@click.option("--instrumental", is_flag=True, help="Without words.")
@click.option("--language", default="unknown", metavar="CODE", help="Language of the lyrics, such as en or ko.")
@_shared
def sample(query: str, instrumental: bool, language: str, **rest: Any) -> None:
    """Invent a song from a wish, such as "a sad song about rain"."""
    _say(
        rest,
        lambda plan, **more: _songwriting().create_sample(
            query, plan, instrumental=instrumental, language=language, **more
        ),
    )


@click.command(name="format")
@click.option("--caption", required=True, metavar="TEXT", help="What the music is like.")
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
    from acestep.planner.metadata import Metadata

    try:
        known = Metadata(
            bpm=bpm, keyscale=keyscale, timesignature=timesignature, language=language, duration_s=duration_s
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    words = text_of(lyrics)
    _say(rest, lambda plan, **more: _songwriting().format_sample(caption, words, plan, metadata=known, **more))


def _songwriting() -> Any:
    from acestep import songwriting

    return songwriting


def _say(rest: dict[str, Any], describe: Callable[..., Any]) -> None:
    as_json, seed, model = (rest.pop(name) for name in ("as_json", "seed", "model"))
    knobs = knobs_of(rest)
    drawn = secrets.randbelow(2**31) if seed is None else seed
    if model not in SIZES and (lm := plan_here(knobs).lm) is not None:
        # What is not here, or not whole, is told before the seconds that it takes to import torch.
        require_lm(lm, checkpoints_dir())
    plan: Plan = _songwriting().plan_to_run(knobs)
    found = describe(plan, model=model, seed=drawn, progress=console.show_progress)
    for sentence in found.warnings:
        console.notify(sentence)
    document = {**to_builtins(found.metadata), "lyrics": found.lyrics, "seed": drawn, "warnings": list(found.warnings)}
    if as_json:
        console.print_json(document)
    else:
        click.echo(show.description_text(document))
