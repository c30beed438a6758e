"""Facts about a tokenizer that a grammar needs: the kind of each token, and the tokens of each field."""

import re
from collections.abc import Iterable, Sequence

import msgspec

from acestep.fields import (
    BPMS,
    KEYSCALES,
    LONGEST_PLAN_S,
    LYRIC_LANGUAGES,
    SHORTEST_PLAN_S,
    TIMESIGNATURES,
    RequestField,
)
from acestep.lm.job import Allowed
from acestep.lm.tokenizer import PlannerTokenizer


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node of a trie: the allowed next tokens, and the node that each token leads to."""

    allowed: Allowed
    following: dict[int, int]


class Trie(msgspec.Struct, frozen=True, kw_only=True):
    """Token sequences as a tree; sequences share their beginnings, and each is followed by the same end.

    Node 0 is the root. `depth` is the number of tokens of the longest sequence, including the end. The end is allowed
    after a complete sequence and leads to no node.
    """

    nodes: tuple[Node, ...]
    depth: int


def trie(sequences: Iterable[Sequence[int]], end: int, *, greedy: bool = False) -> Trie:
    """Return the trie of sequences, each followed by `end`.

    Raises `ValueError` for no sequences, for an empty one, and for one that contains `end`.
    """
    branches: list[dict[int, int]] = [{}]
    complete: set[int] = set()
    depth = 0
    for sequence in sequences:
        if not sequence or end in sequence:
            raise ValueError(f"a choice must be tokens other than the end {end}, got {sequence}")
        place = 0
        for token in sequence:
            if token not in branches[place]:
                branches.append({})
                branches[place][token] = len(branches) - 1
            place = branches[place][token]
        complete.add(place)
        depth = max(depth, len(sequence) + 1)
    if not complete:
        raise ValueError("there is nothing to choose from")
    nodes = tuple(
        Node(
            allowed=Allowed(spans=spans({*branch, end} if place in complete else branch), greedy=greedy),
            following=branch,
        )
        for place, branch in enumerate(branches)
    )
    return Trie(nodes=nodes, depth=depth)


def spans(tokens: Iterable[int]) -> tuple[range, ...]:
    """Return the fewest ascending ranges that contain exactly these ids."""
    found: list[range] = []
    for token in sorted(set(tokens)):
        if found and found[-1].stop == token:
            found[-1] = range(found[-1].start, token + 1)
        else:
            found.append(range(token, token + 1))
    return tuple(found)


CONTROL, MARKUP, WORDS, BLANK, BREAK = range(5)
"""The kinds of plain tokens: control characters, never allowed; allowed only in lyrics; words; only spaces and tabs;
the end of a line, with or without words before it.
"""

# Most tokens are words: this one check is enough for them.
_ODD = re.compile(rb"[\x00-\x1f\x7f<`]|\A[ \t]*\Z")

# A caption contains no "<" and no "`": a spelled-out special token would end the thinking for a reader of the text, and
# the decoder used in training kept backticks out. A token that continues after a line's end would hide whether the next
# line is indented.
_KINDS = (
    (re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]"), CONTROL),
    (re.compile(rb"[<`]|\n[^\n]|\A\Z"), MARKUP),
    (re.compile(rb"\n"), BREAK),
    (re.compile(rb"\A[ \t]+\Z"), BLANK),
)


class Lexicon:
    """Computed once from a tokenizer and shared by all its grammars; equal sets of tokens are the same object."""

    def __init__(self, tokenizer: PlannerTokenizer) -> None:
        self._tokenizer = tokenizer
        self.vocabulary = tokenizer.vocabulary
        self.kinds = bytes(_kind(piece) for piece in tokenizer.pieces)
        eos = self.vocabulary.eos
        self.codes = Allowed(spans=(self.vocabulary.codes,))
        self.everything = Allowed(spans=(range(self.vocabulary.codes.stop),))
        self.lyrics = Allowed(spans=(*self._of({MARKUP, WORDS, BLANK, BREAK}), range(eos, eos + 1)))
        self.caption = Allowed(spans=self._of({WORDS, BLANK, BREAK}))
        self.caption_words = Allowed(spans=self._of({WORDS}))
        self.caption_opening = Allowed(spans=self._of({WORDS, BLANK}))
        self._names = {field: tuple(tokenizer.plain(f"{field}:")) for field in RequestField}
        self._only: dict[int, Allowed] = {}
        self._indented: dict[int, Allowed] = {}
        self._tries: dict[tuple[RequestField, int], Trie] = {}

    def only(self, token: int) -> Allowed:
        """Return the set of this token only."""
        if token not in self._only:
            self._only[token] = Allowed(spans=(range(token, token + 1),))
        return self._only[token]

    def indented_or(self, token: int) -> Allowed:
        """Return what may begin a line of a caption: an indentation, or `token`, which begins the next field's line."""
        if token not in self._indented:
            either = (*self._of({BLANK}), range(token, token + 1))
            self._indented[token] = Allowed(spans=tuple(sorted(either, key=lambda span: span.start)))
        return self._indented[token]

    def name(self, field: RequestField) -> tuple[int, ...]:
        """Return the tokens of a field's name and its colon."""
        return self._names[field]

    def value(self, value: str) -> tuple[int, ...]:
        """Return the tokens of a value and the space before it.

        Byte-level tokenizers merge nothing across its beginning.
        """
        return tuple(self._tokenizer.plain(f" {value}"))

    def choices(self, field: RequestField, longest_s: int = LONGEST_PLAN_S) -> Trie:
        """Return the possible values of a field; for a duration, those up to `longest_s` seconds."""
        if (field, longest_s) not in self._tries:
            self._tries[field, longest_s] = trie(
                [self.value(value) for value in _values(field, longest_s)],
                self.vocabulary.newline,
                greedy=field is RequestField.LANGUAGE,
            )
        return self._tries[field, longest_s]

    def _of(self, kinds: set[int]) -> tuple[range, ...]:
        """Return the ids of the tokens of these kinds."""
        runs = re.finditer(b"[" + bytes(sorted(kinds)) + b"]+", self.kinds)
        return tuple(range(run.start(), run.end()) for run in runs)


def _kind(piece: bytes) -> int:
    if not _ODD.search(piece):
        return WORDS
    for pattern, kind in _KINDS:
        if pattern.search(piece):
            return kind
    return WORDS


def _values(field: RequestField, longest_s: int) -> Iterable[str]:
    return {
        RequestField.BPM: map(str, BPMS),
        RequestField.DURATION: map(str, range(SHORTEST_PLAN_S, longest_s + 1)),
        RequestField.KEYSCALE: KEYSCALES,
        RequestField.LANGUAGE: LYRIC_LANGUAGES,
        RequestField.TIMESIGNATURE: TIMESIGNATURES,
    }[field]
