"""The options of `acestep generate` for work on audio, and the files they name."""

from pathlib import Path
from typing import Any

import click

from acestep.cli.options import parsed, with_options
from acestep.cli.text_files import read_text
from acestep.clip import Clip
from acestep.errors import UsageError
from acestep.fields import track_names
from acestep.request import DCW_HIGH_SCALER, DCW_SCALER, Task
from acestep.task import REPAINT_FADE_S, REPAINT_STRENGTH


def _named(text: str) -> Path:
    # An unset shell variable produces an empty name, which as a path would mean the current folder.
    if not text.strip():
        raise UsageError("a file's name is empty; give one, or leave the option out")
    return Path(text)


AUDIO_FILE = parsed(_named)
"""An audio file to read."""

task_options = with_options(
    click.option(
        "--task", type=click.Choice([task.value for task in Task]), help="What to do; text2music if not given."
    ),
    click.option("--src-audio", type=AUDIO_FILE, metavar="FILE", help="The song that a task works on."),
    click.option("--reference-audio", type=AUDIO_FILE, metavar="FILE", help="A recording whose timbre the song takes."),
    click.option("--audio-codes", metavar="TEXT|@FILE", help="Audio codes to cover instead of a song."),
    click.option(
        "--repaint-start", "repaint_start_s", default=0.0, metavar="SECONDS", help="Where repaint or lego begins."
    ),
    click.option(
        "--repaint-end",
        "repaint_end_s",
        default=0.0,
        metavar="SECONDS",
        help="Where it ends; 0 is the end of the song.",
    ),
    click.option(
        "--repaint-strength",
        default=REPAINT_STRENGTH,
        show_default=True,
        metavar="X",
        help="How freely the part is made, 0 to 1. Below 1 the rest stays the source's; at 1 all of it is made again.",
    ),
    click.option(
        "--repaint-fade",
        "repaint_fade_s",
        default=REPAINT_FADE_S,
        show_default=True,
        metavar="SECONDS",
        help="How long the source and the new part are mixed at each end of the part, outside it.",
    ),
    click.option(
        "--cover-strength",
        default=1.0,
        show_default=True,
        metavar="X",
        help="The share of the cover in each step, 0 to 1; the rest is a new song with the source beside it. Below 1"
        " each step takes two passes.",
    ),
    click.option(
        "--cover-noise",
        default=0.0,
        show_default=True,
        metavar="X",
        help="How much of the source's own sound a cover starts from, 0 to 1: 0 starts from noise.",
    ),
    click.option("--track", default="", metavar="NAME", help="The track to extract or to add, such as vocals."),
    click.option("--tracks", default="", metavar="A,B", help="The tracks to complete a song with, such as bass,drums."),
    click.option(
        "--guidance-interval",
        nargs=2,
        type=float,
        default=(0.0, 1.0),
        metavar="A B",
        help="Guide only between these points from noise (0) to song (1).",
    ),
    click.option(
        "--dcw/--no-dcw", default=None, help="Correct each step in the wavelet domain; on for turbo if not given."
    ),
    click.option(
        "--dcw-scaler",
        default=DCW_SCALER,
        show_default=True,
        metavar="X",
        help="How much --dcw corrects slow changes, 0 to 1.",
    ),
    click.option(
        "--dcw-high-scaler",
        default=DCW_HIGH_SCALER,
        show_default=True,
        metavar="X",
        help="How much --dcw corrects fast changes, 0 to 1.",
    ),
)


def take_task(parameters: dict[str, Any]) -> dict[str, Any]:
    """Remove the options that need processing from a command's parameters; return them as fields of a request."""
    codes, tracks, task = (parameters.pop(name) for name in ("audio_codes", "tracks", "task"))
    source, reference = (parameters.pop(name) for name in ("src_audio", "reference_audio"))
    if source is not None and task is None and codes is None:
        tasks = ", ".join(sorted(set(Task) - {Task.TEXT2MUSIC}))
        raise UsageError(f"--src-audio is for a task that works on it: add --task and one of {tasks}")
    fields: dict[str, Any] = {
        # As in diffusers: codes without a task mean a cover.
        "task": task or (Task.TEXT2MUSIC if codes is None else Task.COVER),
        "tracks": track_names(tracks),
    }
    if codes is not None:
        fields["audio_codes"] = codes_of(text_of(codes))
    if source is not None or reference is not None:
        fields["source_audio"] = source and clip_from_options(source)
        fields["reference_audio"] = reference and clip_from_options(reference)
    return fields


def clip_from_options(path: Path) -> Clip:
    """Return the clip in a file; `InvalidInputError` says why it cannot be read."""
    from acestep.audio.read import read_clip

    return read_clip(path)


def recording_from_options(path: Path) -> Clip:
    """Return the clip in a file that codes are made of; raise `UsageError` if it is too short or too long."""
    clip = clip_from_options(path)
    # A model is loaded only for a recording that can be used.
    clip.require_song_length()
    return clip


def text_of(value: str) -> str:
    """Return an option's text, or the text of the file that it names with a leading @; @@ stands for an @."""
    if value.startswith("@@"):
        return value[1:]
    if not value.startswith("@"):
        return value
    if value == "@":
        raise UsageError("@ must be followed by the name of a file, as in @words.txt")
    return read_text(Path(value[1:]))


def codes_of(text: str) -> tuple[int, ...]:
    """Return the audio codes in a text; raise `UsageError` if it has none."""
    from acestep.dit.prompts import codes_in

    codes = codes_in(text)
    if not codes:
        raise UsageError("--audio-codes has no codes; they look like <|audio_code_123|>")
    return codes
