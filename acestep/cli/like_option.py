"""The option of `acestep generate` that makes a song again: `--like FILE`."""

from typing import Any

import click
import msgspec
from msgspec import UNSET

from acestep.adapters.choice import Adapter
from acestep.adapters.source import digest_of
from acestep.checkpoints.catalog import SIZES, is_named
from acestep.cli import console
from acestep.cli.task_options import AUDIO_FILE
from acestep.cli.think_options import options_of_thinking
from acestep.errors import InvalidInputError, UsageError
from acestep.song_settings import SongSettings, fields_to_ask, settings_in
from acestep.task import Task
from acestep.version import version

like_option = click.option(
    "--like",
    type=AUDIO_FILE,
    metavar="FILE",
    help="Use the settings of this song for all options that you do not give.",
)


_OF_PLAN = ("planned_caption", "bpm", "duration_s", "keyscale", "timesignature", "language")
"""The parameters that hold the plan of a song; which of them the user asked for is not known."""


class LikeASong(click.Command):
    """A command whose options may come from a song."""

    def invoke(self, ctx: click.Context) -> Any:
        """Give the options that the user did not give the values of the song, then run the command."""
        path = ctx.params.pop("like")
        if path is not None:
            from acestep.audio.comments import comment_in

            given = {
                name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
            }
            settings = settings_in(comment_in(path), str(path))
            ctx.params |= _values(settings, given, str(path), ctx.params)
        if ctx.params["caption"] is None:
            raise click.MissingParameter(ctx=ctx, param=next(one for one in self.params if one.name == "caption"))
        return super().invoke(ctx)


def _values(settings: SongSettings, given: set[str], file: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The values of the options that are not `given`, by their parameters' names."""
    if settings.acestep != version():
        console.notify(f"{file} was made by release {settings.acestep}; with {version()} it may sound different.")
    _require_adapters(settings, given, file, parameters["adapters"])
    apart = any(not one.fused for one in settings.adapters) and bool(parameters["adapters"])
    asked, task = settings.request, parameters["task"] if "task" in given else settings.request.task
    fields = fields_to_ask(asked, task) | options_of_thinking(asked.thinking)
    fields["lyrics"] = f"@{asked.lyrics}" if asked.lyrics.startswith("@") else asked.lyrics
    # 0 leaves the length open, as does an option that is not given; without a task the song is new.
    fields |= {"duration_s": asked.duration_s or None, "task": None if task is Task.TEXT2MUSIC else task}
    if fields["planned_caption"] and "planned_caption" not in given and given & {"caption", "lyrics"}:
        console.notify(f"{file} was planned for other words; its plan is not used.")
        fields = {name: value for name, value in fields.items() if name not in _OF_PLAN}
    if "tracks" in fields:
        fields["tracks"] = ",".join(asked.tracks)
    if "audio_codes" in fields:
        fields["audio_codes"] = _codes(asked.audio_codes, given)
    knobs = {name: value for name, value in msgspec.structs.asdict(settings.knobs).items() if value is not UNSET}
    values = fields | knobs | _model(settings, given, file) | {"lora_unfused": apart}
    return {name: value for name, value in values.items() if name in parameters and name not in given}


def _require_adapters(settings: SongSettings, given: set[str], file: str, adapters: tuple[Adapter | None, ...]) -> None:
    """A song names its adapters without their place, and what it names is never opened: the user gives them."""
    if "adapters" not in given and settings.adapters:
        named = " ".join(f"--lora {one.name!r}:{one.scale:g}" for one in settings.adapters)
        raise UsageError(
            f"{file} was made with adapters; say where they are, as in {named}, or give --lora none to do without"
        )
    used = [(digest_of(adapter.path), adapter) for adapter in adapters if adapter is not None]
    for one in settings.adapters if used else ():
        scales = [adapter.scale for digest, adapter in used if digest == one.digest]
        if not scales:
            console.notify(f"No adapter given is {one.name!r}, which {file} was made with; it may sound different.")
        elif one.scale not in scales:
            console.notify(
                f"{file} was made with {one.name!r} at scale {one.scale:g}, and {scales[0]:g} is given; it may sound"
                " different."
            )
    made_with = {one.digest for one in settings.adapters}
    for digest, adapter in used:
        if digest not in made_with and adapter.scale:
            console.notify(f"{file} was made without {adapter.name!r}; with it, the song sounds different.")


def _codes(codes: tuple[int, ...], given: set[str]) -> str | None:
    from acestep.dit.prompts import codes_text

    return codes_text(codes) if codes and "src_audio" not in given else None


def _model(settings: SongSettings, given: set[str], file: str) -> dict[str, Any]:
    """The song's model; models that imitate others need the variant too."""
    if "model" in given:
        return {}
    if settings.model is None:
        raise UsageError(f"{file} was made with weights in a folder of {settings.variant}; name them with --model")
    if not is_named(settings.model):
        raise InvalidInputError(file, f"it was made with {settings.model!r}, which is no model that is known here")
    return {"model": settings.model} | ({"variant": settings.variant} if settings.model in SIZES else {})
