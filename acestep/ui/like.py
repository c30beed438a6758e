"""Fills the form as a song or an example was asked for. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from acestep.request import INSTRUMENTAL, Request
from acestep.song_settings import SongSettings, fields_to_ask
from acestep.task import Task
from acestep.thinking import Thinking
from acestep.ui.form import FILE_INPUTS, FORM_NAME_OF, PLAN_OF, Form

_USUAL: Final = {field.name: field.default for field in msgspec.structs.fields(Request)}

_STAYING: Final = frozenset({"adapter", "audio_format", *FILE_INPUTS})
"""The fields of a form that a request does not change."""

_EMPTY: Final = {name: value for name, value in msgspec.structs.asdict(Form()).items() if name not in _STAYING}

_ON_FORM: Final = {name: FORM_NAME_OF.get(name, name) for name in _USUAL if FORM_NAME_OF.get(name, name) in _EMPTY}
"""The fields of a request that a form has, with their names there."""


class FilledForm(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a form's fields by name, and the fields of a request that no form has and that were not usual.

    What is not among `values` stays as it is: the reference audio, the file format, and the adapter of an example.
    """

    values: dict[str, Any]
    left_out: tuple[str, ...]


def filled(fields: Mapping[str, Any]) -> FilledForm:
    """Return what the fields of one song's request make of a form."""
    values = {_ON_FORM[name]: value for name, value in fields.items() if name in _ON_FORM}
    if values.get("lyrics") == INSTRUMENTAL:
        values |= {"lyrics": "", "instrumental": True}
    values["tracks"] = ", ".join(values.get("tracks", ()))
    values["random_seed"] = "seed" not in fields
    if values.get("task", Task.TEXT2MUSIC) == Task.TEXT2MUSIC:
        values["source_audio"] = None
    thinking = fields.get("thinking", Thinking())
    if thinking.planned_caption:
        # What was decided before the plan is not known; without the plan, the fields that it filled are open.
        values |= {name: values.get(of, _EMPTY[name]) for name, of in PLAN_OF.items()}
        values |= {of: _EMPTY[of] for of in PLAN_OF.values() if of != "caption"}
        values |= {"planned": True, "plan_caption": thinking.planned_caption}
        fields = {**fields, "thinking": msgspec.structs.replace(thinking, planned_caption="")}
    left_out = tuple(name for name, value in fields.items() if name not in _ON_FORM and value != _USUAL.get(name))
    return FilledForm(values=_EMPTY | values, left_out=left_out)


def filled_like(settings: SongSettings, *, new_seed: bool = False) -> FilledForm:
    """Return what the settings of a song make of a form; with a new seed for another song like it."""
    fields = fields_to_ask(settings.request, settings.request.task)
    if new_seed:
        del fields["seed"]
    return filled(fields)
