"""The body of a request for songs, and the request of the pipeline that it describes."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET

from acestep.automatic import AUTOMATIC
from acestep.bitrates import MP3_BITRATES, require_fitting_bitrate
from acestep.clip import Clip
from acestep.errors import UsageError
from acestep.fused_adapter import Scale
from acestep.knobs import LM_MODELS
from acestep.limits.names import AUDIO_FORMATS
from acestep.limits.plan import Overrides, overrides_from
from acestep.request import READ_BY_TASKS, Request, asked_request
from acestep.task import Task
from acestep.thinking import Think

MOST_ADAPTERS: Final = 16
"""Adapters that a request may name."""

UPLOADED: Final = ("source_audio", "reference_audio")
"""The fields that name an upload by its id."""

_OTHERWISE: Final[dict[str, tuple[Any, Any]]] = {
    "seed": (int, AUTOMATIC),
    "think": (bool | None, None),
    **dict.fromkeys(UPLOADED, (str | None, None)),
}
"""The fields whose type or default is that of the command line."""

_Fields = msgspec.defstruct(
    "_Fields",
    [
        (field.name, *_OTHERWISE.get(field.name, (field.type, field.default)))
        for field in msgspec.structs.fields(Request)
        if field.name != "caption"
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)

_Wishes = msgspec.defstruct(
    "_Wishes",
    [
        (field.name, field.type, UNSET)
        for field in msgspec.structs.fields(Overrides)
        if field.name not in ("variant", "lm")
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class KnobWishes(_Wishes):  # type: ignore[misc, valid-type]  # one field for each knob
    """What is to be different from the settings of the server; a knob that is null is off.

    What the card cannot do is replaced, with a warning in the result.
    """

    lm: Annotated[str | None, msgspec.Meta(extra_json_schema={"enum": [*LM_MODELS, None]})] | msgspec.UnsetType = UNSET


class AdapterWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the adapters that the server was started with, by its name; a `scale` of null is the server's."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    scale: Scale | None = None


class SongsAsked(_Fields):  # type: ignore[misc, valid-type]  # the fields of a request
    """The songs that are asked for: the fields of `acestep.Request`, with its rules and units.

    Defaults are those of `acestep generate`: a `seed` of -1 is random, and `think` of null leaves it to the card's tier
    whether a language model plans the songs. `source_audio` and `reference_audio` are ids of uploads. `mp3_bitrate` is
    in kbit/s. `adapters` are those to use, each once; null means all that the server has.
    """

    caption: str
    audio_format: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(AUDIO_FORMATS)})] = "flac"
    mp3_bitrate: Annotated[int | None, msgspec.Meta(extra_json_schema={"enum": [*MP3_BITRATES, None]})] = None
    knobs: KnobWishes = KnobWishes()
    adapters: Annotated[tuple[AdapterWish, ...], msgspec.Meta(max_length=MOST_ADAPTERS)] | None = None


def read_body(body: bytes, uploads: Mapping[str, str] | None = None) -> SongsAsked:
    """Return what a JSON document asks for, with the ids of the `uploads` that came with it in their fields.

    Raises `UsageError` naming the field that cannot be used.
    """
    try:
        asked = msgspec.json.decode(body, type=SongsAsked)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the request cannot be used: {error}") from None
    if uploads:
        if twice := sorted(uploads.keys() & uploads_in(asked).keys()):
            raise UsageError(f"{twice[0]} came as a file and as an id; leave one of them out")
        asked = msgspec.structs.replace(asked, **uploads)
    if asked.audio_format not in AUDIO_FORMATS:
        raise UsageError(f"audio_format must be one of {', '.join(AUDIO_FORMATS)}, got {asked.audio_format!r}")
    require_fitting_bitrate(asked.audio_format, asked.mp3_bitrate)
    wishes_of(asked)
    adapter_wishes(asked)
    _check(asked)
    return asked


def uploads_in(asked: SongsAsked) -> dict[str, str]:
    """Return the ids of the uploads that a request names, by its fields."""
    return {name: getattr(asked, name) for name in UPLOADED if getattr(asked, name) is not None}


def pipeline_request(asked: SongsAsked, clips: Mapping[str, Clip]) -> Request:
    """Return the request of the pipeline, with a clip for each upload; raise `UsageError` as `acestep.Request` does."""
    fields = {name: getattr(asked, name) for name in Request.__struct_fields__ if name not in UPLOADED}
    return asked_request(fields | {"think": asked.think is not False} | dict(clips))


def think_wish(asked: SongsAsked) -> Think:
    """Return whether a language model is to plan the songs."""
    return {None: Think.AS_PLANNED, True: Think.YES, False: Think.NO}[asked.think]


def adapter_wishes(asked: SongsAsked) -> dict[str, float | None] | None:
    """Return the scales of the adapters that a request names, None for all; raise `UsageError` for one named twice."""
    if asked.adapters is None:
        return None
    wishes = {wish.name: wish.scale for wish in asked.adapters}
    if len(wishes) < len(asked.adapters):
        raise UsageError("adapters must not have a name twice")
    return wishes


def wishes_of(asked: SongsAsked) -> dict[str, Any]:
    """Return the knobs that a request names; raise `UsageError` for a value that a knob does not have."""
    given = {name: value for name, value in msgspec.structs.asdict(asked.knobs).items() if value is not UNSET}
    parsed = overrides_from(given)
    return {name: getattr(parsed, name) for name in given}


def _check(asked: SongsAsked) -> None:
    """Raise `UsageError` for what can be refused before any recording is read."""
    if uploads_in(asked):
        # The fields of its task can only be judged with the recording.
        asked = msgspec.structs.replace(
            asked,
            task=Task.TEXT2MUSIC,
            reference_audio=None,
            **{name: absent for name, (absent, _) in READ_BY_TASKS.items()},
        )
    pipeline_request(asked, {})
