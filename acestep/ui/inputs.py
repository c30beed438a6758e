"""The names of the page's inputs in the order in which events have them, and what arrives under them."""

from collections.abc import Sequence
from typing import Any, Final

from acestep.request import Task
from acestep.ui.form import Form, form_from, task_fields
from acestep.ui.settings import Controls, controls_from

SETTINGS: Final = Controls.__struct_fields__

SONG: Final = (*Form.__struct_fields__, *SETTINGS)
"""Everything that a run depends on."""

LIMITED: Final = ("batch", "duration", "think")
"""What the settings limit."""

WISH: Final = (*SETTINGS, *LIMITED)

GUARDED: Final = (
    *("batch", "duration", "think", "task", "cover_strength", "source_audio", "reference_audio"),
    *("tier", "offload_cpu", "offload_dit", "offload_stream", "quantization"),
)
"""What changes the memory that a run needs, beside its words."""

OF_TASKS: Final = tuple(dict.fromkeys(name for task in Task for name in task_fields(task)))
"""What only some tasks read."""

FILES: Final = ("reference_audio", "source_audio")


def song_from(values: Sequence[Any]) -> tuple[Form, Controls]:
    """The form and the settings in the values of `SONG`; `UsageError` names one that cannot be."""
    given = dict(zip(SONG, values, strict=True))
    for name in FILES:
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
