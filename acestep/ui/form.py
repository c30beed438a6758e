"""The form as a browser sends it, and the request it describes. Pure except for the files it names."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from acestep.automatic import AUTOMATIC
from acestep.clip import Clip
from acestep.errors import UsageError
from acestep.limits.names import AUDIO_FORMATS
from acestep.lm.prompts import INSTRUMENTAL
from acestep.plain_text import LONGEST_TEXT
from acestep.request import Request, Task
from acestep.ui.settings import SAVING, Controls, controls_from

_READ_BY = {
    Task.REPAINT: ("repaint_start", "repaint_end"),
    Task.COVER: ("cover_strength",),
    Task.EXTRACT: ("track",),
    Task.LEGO: ("repaint_start", "repaint_end", "track"),
    Task.COMPLETE: ("tracks",),
}

UNUSED_SOURCE = (
    "A new song does not use the source audio: choose a task that works on it, such as cover or repaint, or remove the"
    " file. For its sound alone, give it as the reference audio."
)


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The song that is asked for. Audio files are named by their paths, "" for none; a duration of 0 leaves it open."""

    caption: str = ""
    lyrics: str = ""
    instrumental: bool = False
    language: str = "unknown"
    bpm: int = 0
    keyscale: str = ""
    timesignature: str | int = ""
    think: bool = False
    batch: int = 1
    duration: float = 0.0
    seed: int = 0
    random_seed: bool = True
    steps: int = 0
    guidance: float = 0.0
    shift: float = 3.0
    task: Task = Task.TEXT2MUSIC
    reference_audio: str = ""
    source_audio: str = ""
    repaint_start: float = 0.0
    repaint_end: float = 0.0
    cover_strength: float = 1.0
    track: str = ""
    tracks: str = ""
    audio_format: str = "flac"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, str) and len(value) > LONGEST_TEXT:
                raise ValueError(f"{name} has {len(value):,} characters; at most {LONGEST_TEXT:,} can be used")
        if self.audio_format not in AUDIO_FORMATS:
            raise ValueError(f"audio_format must be one of {', '.join(AUDIO_FORMATS)}, got {self.audio_format!r}")


def task_fields(task: Task) -> tuple[str, ...]:
    """The fields of a form that only this task reads."""
    return _READ_BY.get(task, ())


def form_from(values: dict[str, Any]) -> Form:
    """A form from what a browser sends, null for what was left alone; `UsageError` names a field that cannot be."""
    given = {name: _whole(value) for name, value in values.items() if value is not None}
    try:
        return msgspec.convert(given, Form)
    except msgspec.ValidationError as error:
        raise UsageError(f"the form cannot be used: {error}") from None


def form_request(form: Form, read: Callable[[str], Clip]) -> Request:
    """The request of a form, whose audio files `read` reads; `UsageError` says what there can be no song of."""
    own = task_fields(form.task)
    fields: dict[str, Any] = {
        "caption": form.caption,
        "lyrics": INSTRUMENTAL if form.instrumental else form.lyrics,
        "language": form.language,
        "bpm": form.bpm,
        "keyscale": form.keyscale,
        "timesignature": form.timesignature,
        "think": form.think,
        "batch": form.batch,
        "duration_s": form.duration,
        "seed": AUTOMATIC if form.random_seed else form.seed,
        "steps": form.steps,
        "guidance_scale": form.guidance,
        "shift": form.shift,
        "task": form.task,
    }
    if "repaint_start" in own:
        fields |= {"repaint_start_s": form.repaint_start, "repaint_end_s": form.repaint_end}
    if "cover_strength" in own:
        fields["cover_strength"] = form.cover_strength
    if "track" in own:
        fields["track"] = form.track
    if "tracks" in own:
        fields["tracks"] = tuple(track.strip() for track in form.tracks.split(",")) if form.tracks else ()
    try:
        # Without its audio first, so that another error is reported before a file is read.
        if form.task is Task.TEXT2MUSIC:
            Request(**fields)
            if form.source_audio:
                raise UsageError(UNUSED_SOURCE)
        if form.source_audio:
            fields["source_audio"] = read(form.source_audio)
        if form.reference_audio:
            fields["reference_audio"] = read(form.reference_audio)
        return Request(**fields)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _whole(value: Any) -> Any:
    """A number without a fraction as an integer, which is what a browser means by 2.0."""
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value


SETTINGS: Final = Controls.__struct_fields__

SONG_INPUTS: Final = (*Form.__struct_fields__, *SETTINGS)
"""Everything that a run depends on."""

LIMITED: Final = ("batch", "duration", "think")
"""What the settings limit."""

WISH: Final = (*SETTINGS, *LIMITED)

GUARDED: Final = (
    *("batch", "duration", "think", "task", "cover_strength", "source_audio", "reference_audio"),
    *("tier", *SAVING),
)
"""What changes the memory that a run needs, beside its words."""

OF_TASKS: Final = tuple(dict.fromkeys(name for task in Task for name in task_fields(task)))
"""What only some tasks read."""

FILE_INPUTS: Final = ("reference_audio", "source_audio")


def song_from(values: Sequence[Any]) -> tuple[Form, Controls]:
    """The form and the settings in the values of `SONG`; `UsageError` names one that cannot be."""
    given = dict(zip(SONG_INPUTS, values, strict=True))
    for name in FILE_INPUTS:
        given[name] = given[name] and given[name]["path"]
    form = form_from({name: given[name] for name in Form.__struct_fields__})
    return form, controls_from({name: given[name] for name in SETTINGS})


def wish_from(values: Sequence[Any]) -> tuple[Controls, Form]:
    """The settings, and as much of a form as they limit, in the values of `WISH`."""
    given = dict(zip(WISH, values, strict=True))
    return controls_from({name: given[name] for name in SETTINGS}), limited_from(*(given[name] for name in LIMITED))


def limited_from(batch: Any, duration: Any, think: Any) -> Form:
    """As much of a form as the settings limit."""
    return form_from({"batch": batch, "duration": duration, "think": think})
