"""The `acestep` command. Nothing here imports torch until a command loads a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from acestep.adapters.memory import memory_apart
from acestep.automatic import AUTOMATIC
from acestep.bitrates import MP3_BITRATES, require_fitting_bitrate
from acestep.checkpoints.catalog import checkpoints_dir
from acestep.checkpoints.locate import require
from acestep.cli import console, show
from acestep.cli.like_option import LikeASong, like_option
from acestep.cli.lora_option import adapters_in, lora_option, lora_unfused_option
from acestep.cli.options import (
    SIZE_GIB,
    device_option,
    in_flags,
    json_option,
    knob_options,
    knobs_of,
    knobs_with,
    lm_device_option,
    model_variant_option,
    refuse_empty,
    require_device,
    variant_option,
)
from acestep.cli.serve import serve
from acestep.cli.show_times import faster_lines
from acestep.cli.task_options import take_task, task_options, text_of
from acestep.cli.think_options import take_thinking, think_options
from acestep.cli.ui import PageByDefault, ui
from acestep.cli.words import codes, format_words, sample, understand_command
from acestep.errors import UsageError
from acestep.hardware.card import simulated_card
from acestep.importing import lasting_imports
from acestep.knobs import Variant
from acestep.limits.machine import plan_now, plan_of_card
from acestep.limits.names import AUDIO_FORMATS
from acestep.limits.plan import Overrides
from acestep.limits.plan_document import plan_document
from acestep.limits.song_time import planned_times
from acestep.logs import show_logs
from acestep.request import MIN_DURATION_S
from acestep.thinking import Think
from acestep.tiers import tiers_here
from acestep.units import gib_to_bytes
from acestep.version import version_option

if TYPE_CHECKING:
    from acestep.adapters.choice import Adapter
    from acestep.request import Request

_REQUEST_FLAGS = {
    "duration_s": "--duration",
    "batch": "--batch",
    "seed": "--seed",
    "steps": "--steps",
    "guidance_scale": "--guidance-scale",
    "shift": "--shift",
    "bpm": "--bpm",
    "source_audio": "--src-audio",
    "audio_codes": "--audio-codes",
    "repaint_start_s": "--repaint-start",
    "repaint_end_s": "--repaint-end",
    "repaint_strength": "--repaint-strength",
    "repaint_fade_s": "--repaint-fade",
    "cover_strength": "--cover-strength",
    "cover_noise": "--cover-noise",
    "track": "--track",
    "tracks": "--tracks",
    "guidance_interval": "--guidance-interval",
    "dcw_scaler": "--dcw-scaler",
    "dcw_high_scaler": "--dcw-high-scaler",
}
"""The option for each field that a request may refuse."""

_THINKING_FLAGS = {
    "thinking seed": "--plan-seed",
    "temperature": "--lm-temperature",
    "top_k": "--lm-top-k",
    "top_p": "--lm-top-p",
    "guidance": "--lm-cfg-scale",
}
"""The same for the fields of `Thinking` and its `Sampling`."""


@click.group(cls=PageByDefault, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.option("-v", "--verbose", count=True, help="Show log lines on stderr; -vv shows more.")
def cli(verbose: int) -> None:
    """Music with ACE-Step 1.5, within the limits that were found for your card.

    Without a command it opens the web page, with the options of `acestep ui`.
    """
    show_logs(verbose)


@cli.command()
@click.option("--vram", type=SIZE_GIB, metavar="GIB", help="Plan for a card that reports this size instead.")
@click.option(
    "--free", type=SIZE_GIB, metavar="GIB", help="Plan for this much free memory; by default what is free now."
)
@device_option
@lm_device_option
@variant_option
@knob_options
@lora_option
@lora_unfused_option
@json_option
def plan_command(
    vram: float | None,
    free: float | None,
    adapters: "tuple[Adapter | None, ...]",
    lora_unfused: bool,
    as_json: bool,
    **knobs: Any,
) -> None:
    """Show the limits and settings of this card, without loading a model."""
    memory = memory_apart(adapters_in(adapters, unfused=lora_unfused))
    resolved = plan_now(
        knobs_of(knobs),
        None if vram is None else simulated_card(vram),
        None if free is None else gib_to_bytes(free),
        memory,
    )
    document = plan_document(resolved, memory)
    if as_json:
        console.print_json(to_builtins(document))
    else:
        click.echo(show.plan_text(document))


@cli.command()
@variant_option
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@json_option
def tiers_command(variant: Variant, markdown: bool, as_json: bool) -> None:
    """Show the tier table in force."""
    if markdown and as_json:
        raise UsageError("choose one of --markdown and --json")
    table = tiers_here()
    if variant not in table.variants:
        raise UsageError(f"the table has no tiers for {variant} yet; it has {', '.join(table.variants)}")
    if as_json:
        console.print_json(
            {"table_version": table.table_version, "variant": variant, **to_builtins(table.variants[variant])}
        )
        return
    entry = table.variants[variant]
    if markdown:
        click.echo(show.tiers_markdown(entry))
        return
    plans = [plan_of_card(Overrides(variant=variant), simulated_card(tier.certified_gib)) for tier in entry.tiers]
    lines = faster_lines((plan, planned_times(plan, entry.times)) for plan in plans)
    click.echo("\n".join((show.tiers_text(entry), *lines)))


@cli.command()
@device_option
@click.option("--ask-torch", is_flag=True, help="Ask torch about the cards too, which takes some seconds.")
@click.option("--measure", is_flag=True, help="Measure how fast the device computes and copies, in under 20 s.")
@json_option
def doctor_command(ask_torch: bool, measure: bool, as_json: bool) -> None:
    """Show what was found on this machine and what it lacks."""
    from acestep.cli.doctor import doctor_page, examine, measured

    findings = examine(ask_torch=ask_torch)
    if measure and not findings.no_such_device:
        findings = measured(findings)
    console.answer(findings, lambda findings: click.echo(doctor_page(findings)), as_json=as_json)
    if findings.no_such_device:
        raise UsageError(findings.no_such_device)


@cli.command()
@click.argument("model")
def download_command(model: str) -> None:
    """Fetch the weights of MODEL, by short name or ID; an interrupted download continues where it stopped."""
    from acestep.checkpoints.download import download as fetch

    click.echo(fetch(model))


@cli.command(cls=LikeASong)
@like_option
@click.option("--caption", metavar="TEXT", help="Description of the music; needed without --like.")
@click.option(
    "--lyrics",
    default="",
    metavar="TEXT|@FILE",
    help="The words; @FILE reads them from a file, @@ begins words with @. Without them the song is instrumental.",
)
@click.option(
    "--duration",
    "duration_s",
    type=float,
    metavar="SECONDS",
    help="Length of each song; if not given or -1: that of the source, the planned length, or 60 s.",
)
@click.option("--batch", default=1, show_default=True, metavar="N", help="How many songs.")
@click.option("--seed", type=int, metavar="N", help="Seed of the first song, random if not given or -1.")
@click.option("--steps", default=0, metavar="N", help="Denoising steps; the model's default if not given.")
@click.option("--guidance-scale", default=0.0, metavar="X", help="Guidance; the model's default if not given.")
@click.option("--shift", default=3.0, show_default=True, metavar="X", help="Timestep shift.")
@click.option("--bpm", default=0, metavar="N", help="Beats per minute; 0 leaves it open.")
@click.option("--keyscale", default="", metavar="TEXT", help='Key, such as "C major".')
@click.option("--timesignature", default="", metavar="TEXT", help="Time signature, such as 4.")
@click.option("--language", default="unknown", metavar="CODE", help="Language of the lyrics, such as en or ko.")
@task_options
@click.option("--model", default="turbo", show_default=True, metavar="ID|DIR|tiny|dummy", help="Which weights.")
@model_variant_option
@lora_option
@lora_unfused_option
@think_options
@device_option
@lm_device_option
@knob_options
@click.option("--out", type=click.Path(file_okay=False), default="out", show_default=True)
@click.option("--format", "audio_format", type=click.Choice(AUDIO_FORMATS), default="flac", show_default=True)
@click.option(
    "--mp3-bitrate",
    type=click.Choice(MP3_BITRATES),
    metavar="KBPS",
    help="Constant bitrate of --format mp3 in kbit/s, such as 192 or 320; the encoder's choice if not given.",
)
@json_option
def generate_command(
    lyrics: str,
    seed: int | None,
    model: str,
    adapters: "tuple[Adapter | None, ...]",
    lora_unfused: bool,
    think: bool | None,
    out: str,
    audio_format: str,
    mp3_bitrate: int | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Make songs and write them to disk."""
    refuse_empty(model=model, out=out)
    require_fitting_bitrate(audio_format, mp3_bitrate)
    if rest["duration_s"] == 0:
        raise UsageError(f"--duration must be at least {MIN_DURATION_S:.0f} second, or -1 to leave it open, got 0")
    overrides = knobs_with(model, rest)
    rest |= take_task(rest)
    try:
        rest["thinking"] = take_thinking(rest)
    except UsageError as error:
        raise UsageError(in_flags(str(error), _THINKING_FLAGS)) from None
    thinks = {None: Think.AS_PLANNED, True: Think.YES, False: Think.NO}[think]
    # If the user gives no duration, thinking decides it, so the request must know from the start whether it thinks.
    request = _request(
        lyrics=text_of(lyrics),
        seed=AUTOMATIC if seed is None else seed,
        think=thinks is not Think.NO,
        **rest,
    )
    # Missing weights are reported before torch is imported, which takes seconds.
    require(model, checkpoints_dir())
    require_device()
    used = adapters_in(adapters, unfused=lora_unfused)

    with lasting_imports():
        from acestep.api import run_generate

    document = run_generate(
        request,
        model=model,
        overrides=overrides,
        out=Path(out),
        audio_format=audio_format,
        notify=console.notify,
        progress=console.show_progress,
        think=thinks,
        adapters=used,
        mp3_bitrate=mp3_bitrate,
    )
    console.answer(document, lambda document: click.echo(show.songs_text(document)), as_json=as_json)


for command in (ui, serve, codes, understand_command, sample, format_words):
    cli.add_command(command)


def _request(**fields: Any) -> "Request":
    from acestep.request import asked_request

    try:
        return asked_request(fields)
    except UsageError as error:
        raise UsageError(in_flags(str(error), _REQUEST_FLAGS)) from None


def main() -> None:
    """The entry point of the `acestep` script."""
    console.run_and_exit(cli)
