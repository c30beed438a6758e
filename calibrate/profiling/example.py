"""The requests in `examples/`, and an upper bound of the length of their prompts."""

from pathlib import Path

import msgspec

from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.errors import UsageError
from acestep.request import MAX_DURATION_S, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.strict_json import read_as

EXAMPLES_FOLDER = Path(__file__).parents[2] / "examples" / "text2music"
"""The requests' folder in a checkout."""


class PromptLength(msgspec.Struct, frozen=True, kw_only=True):
    """How long a prompt is, in tokens: the DiT's text with its template, and the lyrics."""

    text_tokens: int = MAX_TEXT_TOKENS
    lyric_tokens: int = MAX_LYRIC_TOKENS


LONGEST_PROMPT = PromptLength()
"""The prompt length with which a tier's limits are proven."""


def load_example(name: str, folder: Path = EXAMPLES_FOLDER) -> Request:
    """Return the request of an example.

    Raises `UsageError` for an unknown name, `InvalidInputError` for an unusable file.
    """
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise UsageError(f"there is no example {name!r}; there are {', '.join(known) or 'none'}")
    return read_as(folder / f"{name}.json", Request)


def prompt_of(request: Request) -> PromptLength:
    """Return an upper bound of a request's prompt length, without a tokenizer: no token is shorter than a byte."""
    # Probes set their own language and duration in the prompt; the bound must cover the longest possible values.
    widest = msgspec.structs.replace(request, language=max(request.language, "unknown", key=len))
    widest = msgspec.structs.replace(widest, duration_s=MAX_DURATION_S)
    return PromptLength(
        text_tokens=min(MAX_TEXT_TOKENS, len(text_prompt(widest).encode())),
        lyric_tokens=min(MAX_LYRIC_TOKENS, len(lyric_prompt(widest).encode())),
    )
