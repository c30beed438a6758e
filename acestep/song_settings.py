"""How a song was made, as its file carries it: enough to make the song again."""

import json
from typing import Any

import msgspec

from acestep.errors import InvalidInputError
from acestep.fused_adapter import FusedAdapter
from acestep.knobs import KNOBS, Knobs, Variant
from acestep.request import READ_BY_TASKS, Request
from acestep.result import Result
from acestep.stage import Stage
from acestep.task import SOURCED, Task
from acestep.version import version

_NOT_KEPT = frozenset({"source_audio", "reference_audio", "batch"})

_AskedSettings = msgspec.defstruct(
    "_AskedSettings",
    [
        (field.name, field.type, field.default)
        for field in msgspec.structs.fields(Request)
        if field.name not in {*_NOT_KEPT, "caption"}
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class AskedSettings(_AskedSettings):  # type: ignore[misc, valid-type]  # the fields of a request
    """The request of one song, without the audio that came with it."""

    caption: str


HEARD_KNOBS = ("quantization", "lm", "lm_quantization")
"""The knobs that change how a song sounds; the others only decide where its parts are computed."""

_HeardKnobs = msgspec.defstruct(
    "_HeardKnobs",
    [
        (field.name, field.type | msgspec.UnsetType, msgspec.UNSET)
        for field in msgspec.structs.fields(Knobs)
        if field.name in HEARD_KNOBS
    ],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class SongSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request of one song, its model and knobs, its adapters, and the version of this program.

    `model` is the name of published weights; None for those of a folder. Adapters are named without their place.
    """

    acestep: str
    model: str | None
    variant: Variant
    knobs: _HeardKnobs  # type: ignore[valid-type]  # made from the knobs
    request: AskedSettings
    adapters: tuple[FusedAdapter, ...] = ()


def settings_text(request: Request, result: Result, seed: int, model: str | None, knobs: Knobs) -> str:
    """Return the settings of the song with a seed, as JSON in ASCII: some tags hold nothing else.

    The request is the one that was asked; whether a language model planned it is told by the result.
    """
    thinks = any(report.name == Stage.THINK for report in result.stages)
    fields = msgspec.structs.asdict(request) | {"seed": seed, "think": thinks}
    if request.source_audio is not None and request.duration_s == request.source_audio.duration_s:
        # It follows its source, and another source may have another length.
        fields["duration_s"] = 0.0
    settings = {
        "acestep": version(),
        "model": model,
        "variant": knobs.variant,
        "knobs": {name: getattr(knobs, name) for name in HEARD_KNOBS if thinks or not KNOBS[name].of_lm},
        "request": {name: value for name, value in fields.items() if name not in _NOT_KEPT},
        "adapters": result.adapters,
    }
    return json.dumps(msgspec.to_builtins(settings))


def fields_to_ask(asked: AskedSettings, task: Task) -> dict[str, Any]:
    """Return the fields of a song's request that a task reads, by their names, to ask for the song again.

    Of a song's settings only these describe the song; a path or an option of the machine is never among them.
    """
    return {
        name: value
        for name, value in msgspec.structs.asdict(asked).items()
        if name not in READ_BY_TASKS or task in READ_BY_TASKS[name][1]
    }


def settings_in(text: str | None, file: str) -> SongSettings:
    """Return the settings in the comment of a file; raise `InvalidInputError` if it has none that are known here."""
    if text is None:
        raise InvalidInputError(file, "it does not say how it was made; only songs of this program do")
    try:
        # Python's own reader, because a terminal passes bytes that are not valid text as lone surrogates.
        found = msgspec.convert(json.loads(text), SongSettings)
        if found.request.task not in SOURCED:
            Request(**msgspec.structs.asdict(found.request))
        return found
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(file, f"its comment does not say how it was made ({error})") from None
