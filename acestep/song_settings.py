"""How a song was made, as its file carries it: enough to make the song again."""

import json
from typing import Any

import msgspec

from acestep.errors import InvalidInputError
from acestep.knobs import KNOBS, Knobs
from acestep.request import Request
from acestep.version import version

_AUDIO = ("source_audio", "reference_audio")

HEARD_KNOBS = ("quantization", "lm", "lm_quantization")
"""The knobs that change how a song sounds; the others only decide where its parts are computed."""


class SongSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The request of one song without its audio, the name of its model, the knobs, and the version of this program."""

    acestep: str
    model: str
    knobs: dict[str, Any]
    request: dict[str, Any]


def settings_text(request: Request, seed: int, model: str, knobs: Knobs) -> str:
    """Return the settings of the song with a seed, as JSON in ASCII: some tags hold nothing else."""
    fields = msgspec.structs.asdict(request) | {"seed": seed, "batch": 1}
    kept = {name: value for name, value in fields.items() if name not in _AUDIO}
    if not request.thinks:
        del kept["thinking"]
    settings = SongSettings(
        acestep=version(),
        model=model,
        knobs={name: getattr(knobs, name) for name in HEARD_KNOBS if request.thinks or not KNOBS[name].of_lm},
        request=kept,
    )
    return json.dumps(msgspec.to_builtins(settings))


def settings_in(text: str | None, file: str) -> SongSettings:
    """Return the settings in the comment of a file; raise `InvalidInputError` if it has none."""
    if text is None:
        raise InvalidInputError(file, "it does not say how it was made; only songs of this program do")
    try:
        # Python's own reader, because a terminal passes bytes that are not valid text as lone surrogates.
        return msgspec.convert(json.loads(text), SongSettings)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(file, f"its comment does not say how it was made ({error})") from None
