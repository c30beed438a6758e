"""The requests in `examples/`, and how long a prompt each of them can be at most."""

from pathlib import Path

import msgspec

from acestep.dit.prompts import lyric_prompt, text_prompt
from acestep.errors import InvalidInputError, UsageError
from acestep.request import MAX_DURATION_S, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request
from acestep.strict_json import read_json

EXAMPLES_FOLDER = Path(__file__).parents[2] / "examples" / "text2music"
"""Where a checkout keeps its requests."""


class PromptLength(msgspec.Struct, frozen=True, kw_only=True):
    """How long a prompt is, in tokens: the DiT's text with its template, and the lyrics."""

    text_tokens: int = MAX_TEXT_TOKENS
    lyric_tokens: int = MAX_LYRIC_TOKENS


LONGEST_PROMPT = PromptLength()
"""What a tier's promises are proven with."""


def load_example(name: str, folder: Path = EXAMPLES_FOLDER) -> Request:
    """The request an example holds; `UsageError` for an unknown name, `InvalidInputError` for an unusable file."""
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise UsageError(f"there is no example {name!r}; there are {', '.join(known) or 'none'}")
    path = folder / f"{name}.json"
    try:
        return msgspec.convert(read_json(path), Request)
    except msgspec.ValidationError as error:
        raise InvalidInputError(path, str(error)) from None


def prompt_of(request: Request) -> PromptLength:
    """At most how long a request's prompt is, without a tokenizer: no token is shorter than a byte."""
    # Probes write their own language and duration into the prompt; the bound must cover the longest they may write.
    widest = msgspec.structs.replace(request, language=max(request.language, "unknown", key=len))
    widest = msgspec.structs.replace(widest, duration_s=MAX_DURATION_S)
    return PromptLength(
        text_tokens=min(MAX_TEXT_TOKENS, len(text_prompt(widest).encode())),
        lyric_tokens=min(MAX_LYRIC_TOKENS, len(lyric_prompt(widest).encode())),
    )
