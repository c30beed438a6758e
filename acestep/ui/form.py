"""The form as a browser sends it, and the request it describes. Pure except for the files it names."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from acestep.automatic import AUTOMATIC
from acestep.clip import Clip
from acestep.errors import UsageError
from acestep.fields import track_names
from acestep.limits.names import AUDIO_FORMATS
from acestep.plain_text import LONGEST_TEXT
from acestep.request import INSTRUMENTAL, Request, Task, asked_request
from acestep.task import REPAINT_STRENGTH
from acestep.thinking import Thinking
from acestep.typed import from_user
from acestep.ui.settings import SAVING, Controls, controls_from

READ_BY = {
    Task.REPAINT: ("repaint_start", "repaint_end", "repaint_strength"),
    Task.COVER: ("cover_strength", "cover_noise"),
    Task.EXTRACT: ("track",),
    Task.LEGO: ("repaint_start", "repaint_end", "repaint_strength", "track"),
    Task.COMPLETE: ("tracks",),
}

FILE_INPUTS: Final = ("source_audio", "reference_audio")

FORM_NAME_OF: Final = {
    "duration_s": "duration",
    "guidance_scale": "guidance",
    "repaint_start_s": "repaint_start",
    "repaint_end_s": "repaint_end",
}
"""The fields of a request that have another name on the form."""

_FIELD_OF: Final = {name: field for field, name in FORM_NAME_OF.items()}

PLAN_OF: Final = {
    f"plan_{name}": name for name in ("caption", "bpm", "keyscale", "timesignature", "language", "duration")
}
"""The fields of the language model's plan, and the fields of a form that they stand for."""

_TRANSLATED = frozenset(
    {"instrumental", "random_seed", "audio_format", "adapter", "tracks", "planned", *PLAN_OF, *FILE_INPUTS}
)
"""The fields of a form that a request does not have in this form."""

UNUSED_SOURCE = (
    "A new song does not use the source audio: choose a task that works on it, such as cover or repaint, or remove the"
    " file. For its sound alone, give it as the reference audio."
)


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The song that is asked for. Audio files are named by their paths; a duration of 0 leaves it open.

    `adapter` is a choice of the page's adapters, "" for all. A song that is `planned` follows the fields `plan_...`,
    which the language model has filled in and the visitor may have changed.
    """

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
    reference_audio: str | None = None
    source_audio: str | None = None
    repaint_start: float = 0.0
    repaint_end: float = 0.0
    repaint_strength: float = REPAINT_STRENGTH
    cover_strength: float = 1.0
    cover_noise: float = 0.0
    track: str = ""
    tracks: str = ""
    audio_format: str = "flac"
    adapter: str = ""
    planned: bool = False
    plan_caption: str = ""
    plan_bpm: int = 0
    plan_keyscale: str = ""
    plan_timesignature: str | int = ""
    plan_language: str = "unknown"
    plan_duration: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, str) and len(value) > LONGEST_TEXT:
                raise ValueError(f"{name} has {len(value):,} characters; at most {LONGEST_TEXT:,} can be used")
        if self.audio_format not in AUDIO_FORMATS:
            raise ValueError(f"audio_format must be one of {', '.join(AUDIO_FORMATS)}, got {self.audio_format!r}")


def task_fields(task: Task) -> tuple[str, ...]:
    """The fields of a form that only this task reads."""
    return READ_BY.get(task, ())


KEPT: Final = tuple(name for name in Form.__struct_fields__ if name not in FILE_INPUTS)
"""The fields that survive a reload of the page."""

OF_TASKS: Final = tuple(dict.fromkeys(name for task in Task for name in task_fields(task)))
"""The fields that only some tasks read."""


def form_from(values: dict[str, Any]) -> Form:
    """Return a form from the values of a browser, null for the default; raise `UsageError` naming an invalid field."""
    given = {name: _whole(value) for name, value in values.items() if value is not None}
    return from_user(given, Form, "the form cannot be used: {}")


def form_request(form: Form, read: Callable[[str], Clip]) -> Request:
    """The request of a form, whose audio files `read` reads; `UsageError` says what there can be no song of."""
    own = task_fields(form.task)
    fields = {
        _FIELD_OF.get(name, name): value
        for name, value in msgspec.structs.asdict(form).items()
        if name not in _TRANSLATED and (name not in OF_TASKS or name in own)
    }
    fields["lyrics"] = INSTRUMENTAL if form.instrumental else form.lyrics
    fields["seed"] = AUTOMATIC if form.random_seed else form.seed
    if "tracks" in own:
        fields["tracks"] = track_names(form.tracks)
    if form.planned and form.think and form.task is Task.TEXT2MUSIC:
        fields |= {_FIELD_OF.get(name, name): getattr(form, planned) for planned, name in PLAN_OF.items()}
        fields["thinking"] = Thinking(planned_caption=form.plan_caption.strip() or form.caption)
        fields["caption"] = form.caption
    if form.task is Task.TEXT2MUSIC:
        # Checked before a file is read, so that another error is reported first.
        asked_request(fields)
        if form.source_audio:
            raise UsageError(UNUSED_SOURCE)
    audio = {name: read(path) for name in FILE_INPUTS if (path := getattr(form, name))}
    return asked_request(fields | audio)


def request_to_plan(form: Form, read: Callable[[str], Clip]) -> Request:
    """Return the request of a form for another plan; raise as `form_request` does."""
    request = form_request(msgspec.structs.replace(form, planned=False, think=True), read)
    # The first plan is the one that a song without a plan would get.
    seed = AUTOMATIC if form.planned and form.random_seed else 0
    return msgspec.structs.replace(request, thinking=Thinking(seed=seed))


def plan_values(planned: Request) -> dict[str, Any]:
    """Return the fields of a form that show a plan."""
    shown = {name: getattr(planned, _FIELD_OF.get(of, of)) for name, of in PLAN_OF.items()}
    return {"think": True, "planned": True, **shown}


def _whole(value: Any) -> Any:
    """A number without a fraction as an integer, which is what a browser means by 2.0."""
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value


SETTINGS: Final = Controls.__struct_fields__

SONG_INPUTS: Final = (*Form.__struct_fields__, *SETTINGS)
"""Everything that a run depends on."""

LIMITED: Final = ("batch", "duration", "think")
"""The fields that the settings limit."""

WISH: Final = (*SETTINGS, *LIMITED)

GUARDED: Final = (
    *("batch", "duration", "think", "task", "cover_strength", "source_audio", "reference_audio"),
    *("planned", "plan_duration"),
    *("tier", *SAVING),
)
"""The fields that change the memory of a run, except for its texts."""


def song_from(values: Sequence[Any]) -> tuple[Form, Controls]:
    """Return the form and the settings in the values of `SONG_INPUTS`; raise `UsageError` naming an invalid one."""
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
    """Return a form with the fields that the settings limit."""
    return form_from({"batch": batch, "duration": duration, "think": think})
