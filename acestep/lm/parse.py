"""Reads metadata, lyrics and audio codes from the text that a language model wrote."""

import re
from collections.abc import Sequence

import msgspec
import yaml

from acestep.errors import AceStepError
from acestep.fields import RequestField
from acestep.lm.metadata import Metadata
from acestep.lm.tokenizer import PlannerTokenizer

_HEADER = re.compile(r"\s*(?:#\s*Languages?[ \t]*\n.*?\n\s*)?(?:#\s*Lyrics?[ \t]*(?:\n|$))?", re.IGNORECASE | re.DOTALL)


class ParseError(AceStepError):
    """The text of a language model does not have the requested form; `text` is all of it."""

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(f"{problem}; it begins with {text[:200]!r}. Try another seed or a larger language model.")
        self.problem = problem
        self.text = text


class Writing(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a model's output: the thinking, and the text that `follows` it.

    `closed` says that the thinking ended.
    """

    text: str
    thought: str
    follows: str
    closed: bool

    @property
    def metadata(self) -> Metadata:
        """Return the fields of the thinking; raise `ParseError` if there is none, or if a field is invalid."""
        fields = _fields(self.thought)
        values = {name: "" if text == "N/A" and name != RequestField.CAPTION else text for name, text in fields.items()}
        if not any(values.values()):
            raise ParseError("The language model wrote no metadata", self.text)
        try:
            return Metadata(
                bpm=int(values.get(RequestField.BPM) or 0),
                caption=values.get(RequestField.CAPTION, ""),
                duration_s=int(values.get(RequestField.DURATION) or 0),
                keyscale=values.get(RequestField.KEYSCALE, ""),
                language=values.get(RequestField.LANGUAGE, ""),
                timesignature=values.get(RequestField.TIMESIGNATURE, ""),
            )
        except ValueError as error:
            raise ParseError(f"The language model wrote metadata that mean nothing ({error})", self.text) from error

    @property
    def lyrics(self) -> str:
        """Return the words after the thinking, "" if there are none; raise `ParseError` if the thinking never ended."""
        if not self.closed:
            raise ParseError("The language model's thinking has no end", self.text)
        header = _HEADER.match(self.follows)
        return self.follows[header.end() if header else 0 :].strip()


def read_tokens(tokens: Sequence[int], tokenizer: PlannerTokenizer) -> Writing:
    """Split a model's tokens into parts: only the first thinking counts, spelled-out special tokens are plain text."""
    vocabulary = tokenizer.vocabulary
    text = tokenizer.text(tokens)
    written = list(tokens)
    while written and written[-1] in (vocabulary.eos, vocabulary.pad):
        written.pop()
    begin = written.index(vocabulary.think) + 1 if vocabulary.think in written else 0
    closed = vocabulary.thought in written[begin:]
    end = written.index(vocabulary.thought, begin) if closed else len(written)
    return Writing(
        text=text,
        thought=tokenizer.text(written[begin:end]),
        follows=tokenizer.text(written[end + 1 :]),
        closed=closed,
    )


def codes_in_tokens(tokens: Sequence[int], tokenizer: PlannerTokenizer) -> tuple[int, ...]:
    """Return the audio codes that tokens stand for; raise `ParseError` if there are none or other tokens among them."""
    vocabulary = tokenizer.vocabulary
    ends = (vocabulary.eos, vocabulary.pad)
    codes = [token for token in tokens if token not in ends]
    if not codes or any(token not in vocabulary.codes for token in codes):
        raise ParseError("The language model wrote something else than audio codes", tokenizer.text(tokens))
    return tuple(map(vocabulary.code, codes))


def _fields(thought: str) -> dict[str, str]:
    """Return the known fields of the thinking: an unindented line begins a field, indented lines continue it."""
    lines: dict[str, list[str]] = {}
    current: list[str] = []
    for line in thought.split("\n"):
        if line[:1] in (" ", "\t"):
            current.append(line.strip(" \t"))
        elif ":" in line and not line.startswith("<"):
            name, _, value = line.partition(":")
            current = lines[name.strip().lower()] = [value.strip(" \t")]
    return {name: _unquoted([line for line in lines[name] if line]) for name in map(str, RequestField) if name in lines}


def _unquoted(lines: list[str]) -> str:
    """Join lines into one, without YAML's quotes."""
    joined = " ".join(lines)
    if joined[:1] not in ("'", '"'):
        return joined
    try:
        value = yaml.safe_load("\n ".join(lines))
    except (yaml.YAMLError, ValueError):
        return joined
    return value if isinstance(value, str) and value.strip() else joined
