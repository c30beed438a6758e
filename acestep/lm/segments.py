"""The segments of a grammar. Each covers one part of the token sequence and knows where that part ends."""

from typing import Protocol

import msgspec

from acestep.lm.job import Allowed
from acestep.lm.lexicon import BLANK, BREAK, CONTROL, WORDS, Lexicon, Trie

Cursor = tuple[int, int]
"""Opaque cursor of a segment; each `Segment` documents its two ints."""

BEGINNING: Cursor = (0, 0)
ENDED: Cursor = (-1, 0)


class Segment(Protocol):
    """A part of the sequence with its rules. It starts at the cursor `BEGINNING` and is never empty."""

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens it can hold."""
        ...

    def allowed(self, place: Cursor) -> Allowed:
        """Return the tokens that may come next."""
        ...

    def after(self, place: Cursor, token: int) -> Cursor:
        """Return the cursor after a token, `ENDED` after the last one.

        Raises `ValueError` for a token that is not allowed.
        """
        ...


class Literal(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Exactly these tokens. The cursor is (number of tokens so far, 0)."""

    tokens: tuple[int, ...]
    lexicon: Lexicon

    @property
    def most_tokens(self) -> int:
        return len(self.tokens)

    def allowed(self, place: Cursor) -> Allowed:
        return self.lexicon.only(self.tokens[place[0]])

    def after(self, place: Cursor, token: int) -> Cursor:
        if token != self.tokens[place[0]]:
            raise _refused(token)
        return (place[0] + 1, 0) if place[0] + 1 < len(self.tokens) else ENDED


class TrieSegment(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One of a trie's sequences and its end. The cursor is (node, 0)."""

    trie: Trie

    @property
    def most_tokens(self) -> int:
        return self.trie.depth

    def allowed(self, place: Cursor) -> Allowed:
        return self.trie.nodes[place[0]].allowed

    def after(self, place: Cursor, token: int) -> Cursor:
        node = self.trie.nodes[place[0]]
        if token in node.following:
            return (node.following[token], 0)
        if token not in node.allowed:
            raise _refused(token)
        return ENDED


_EMPTY, _INDENTED, _LINE, _NEW_LINE = range(4)


class Caption(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Free text of one or more lines, all but the first indented, then `closing`: the first token of what follows.

    The first line contains words, and after `limit` tokens (2 or more) only the end of the line may come. The cursor is
    (stage, tokens so far); the stages are: nothing yet, only spaces yet, within a line, or at the beginning of a
    further line.
    """

    lexicon: Lexicon
    closing: int
    limit: int

    @property
    def most_tokens(self) -> int:
        return self.limit + 2

    def allowed(self, place: Cursor) -> Allowed:
        stage, count = place
        if stage == _NEW_LINE:
            lexicon = self.lexicon
            return lexicon.only(self.closing) if count >= self.limit else lexicon.indented_or(self.closing)
        if stage == _LINE:
            return self.lexicon.caption if count < self.limit else self.lexicon.only(self.lexicon.vocabulary.newline)
        return self.lexicon.caption_opening if stage == _EMPTY else self.lexicon.caption_words

    def after(self, place: Cursor, token: int) -> Cursor:
        stage, count = place
        lexicon = self.lexicon
        if stage == _NEW_LINE and token == self.closing:
            return ENDED
        kind = lexicon.kinds[token] if 0 <= token < len(lexicon.kinds) else -1
        full = count >= self.limit
        fits = {
            _EMPTY: kind in (WORDS, BLANK),
            _INDENTED: kind == WORDS,
            _LINE: token == lexicon.vocabulary.newline if full else kind in (WORDS, BLANK, BREAK),
            _NEW_LINE: kind == BLANK and not full,
        }
        if not fits[stage]:
            raise _refused(token)
        if kind == BREAK:
            return (_NEW_LINE, count + 1)
        return (_INDENTED if stage == _EMPTY and kind == BLANK else _LINE, count + 1)


class Lyrics(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Any plain text of up to `limit` tokens, then the end of the turn. The cursor is (tokens so far, 0)."""

    lexicon: Lexicon
    limit: int

    @property
    def most_tokens(self) -> int:
        return self.limit + 1

    def allowed(self, place: Cursor) -> Allowed:
        return self.lexicon.lyrics if place[0] < self.limit else self.lexicon.only(self.lexicon.vocabulary.eos)

    def after(self, place: Cursor, token: int) -> Cursor:
        kinds = self.lexicon.kinds
        if token == self.lexicon.vocabulary.eos:
            return ENDED
        if place[0] >= self.limit or not 0 <= token < len(kinds) or kinds[token] == CONTROL:
            raise _refused(token)
        return (place[0] + 1, 0)


class Anything(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Any tokens up to `limit`, or up to one of `ends`. The cursor is (tokens so far, 0)."""

    lexicon: Lexicon
    limit: int
    ends: frozenset[int]

    @property
    def most_tokens(self) -> int:
        return self.limit

    def allowed(self, place: Cursor) -> Allowed:  # noqa: ARG002 as in the protocol
        return self.lexicon.everything

    def after(self, place: Cursor, token: int) -> Cursor:
        if token not in self.lexicon.everything:
            raise _refused(token)
        return ENDED if token in self.ends or place[0] + 1 >= self.limit else (place[0] + 1, 0)


class CodeSegment(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Exactly `count` audio codes. The cursor is (number of codes so far, 0)."""

    lexicon: Lexicon
    count: int

    @property
    def most_tokens(self) -> int:
        return self.count

    def allowed(self, place: Cursor) -> Allowed:  # noqa: ARG002 as in the protocol
        return self.lexicon.codes

    def after(self, place: Cursor, token: int) -> Cursor:
        if token not in self.lexicon.vocabulary.codes:
            raise _refused(token)
        return (place[0] + 1, 0) if place[0] + 1 < self.count else ENDED


def _refused(token: int) -> ValueError:
    return ValueError(f"token {token} is not allowed here")
