"""The option of `acestep generate` that takes what is not given from a song: `--like FILE`."""

from pathlib import Path
from typing import Any

import click

from acestep.cli.think_options import options_of_thinking
from acestep.errors import InvalidInputError
from acestep.song_settings import SongSettings, settings_in


def _take_song(context: click.Context, _: click.Parameter, value: str | None) -> None:
    """Make the settings of a song the defaults of this command's options."""
    if value is None:
        return
    from acestep.audio.comments import comment_in

    settings = settings_in(comment_in(Path(value)), value)
    try:
        context.default_map = _defaults(settings)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidInputError(value, f"what it says of how it was made is not known here ({error!r})") from None


like_option = click.option(
    "--like",
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_take_song,
    help="Make a song of this program again: what other options do not give is taken from its file.",
)


def _defaults(settings: SongSettings) -> dict[str, Any]:
    """The values of options, by their parameters' names."""
    from acestep.dit.prompts import codes_text

    request = dict(settings.request)
    thinking = request.pop("thinking", None)
    lyrics = str(request.pop("lyrics"))
    given = request | {
        # An option that begins with @ names a file.
        "lyrics": f" {lyrics}" if lyrics.startswith("@") else lyrics,
        "audio_codes": codes_text(request.pop("audio_codes")),
        "tracks": ",".join(request.pop("tracks")),
        "guidance_interval": tuple(request["guidance_interval"]),
        "model": settings.model,
    }
    # What was left open is no value of an option.
    given = {name: value for name, value in given.items() if value or name not in ("duration_s", "audio_codes")}
    knobs = {name: "none" if value is None else value for name, value in settings.knobs.items()}
    return given | knobs | (options_of_thinking(thinking) if thinking else {})
