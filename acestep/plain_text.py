"""Texts that a user gives, such as a caption or lyrics, in one form wherever they come from."""

import re

LONGEST_TEXT = 1_000_000
"""Longest text in characters: far longer than a model reads, short enough to be read at once."""

_NO_CHARACTERS = str.maketrans("", "", "\ufeff\0")
"""Byte order marks and NUL, which mean nothing in a text."""

_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
"""What programs write at the end of a line or of a page, besides a line feed; word processors write the last five."""


def plain_text(name: str, text: str) -> str:
    """Return a text without byte order marks and NUL characters, and with line feeds as line ends.

    A mark stays in a text that a program or a clipboard took from a file, and between files that were joined. Raises
    `ValueError` with the `name` of the text if it is longer than `LONGEST_TEXT`.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{name} has {len(text):,} characters; at most {LONGEST_TEXT:,} can be used, so shorten it")
    return _LINE_ENDS.sub("\n", text.translate(_NO_CHARACTERS))


def song_wish(text: str) -> str:
    """Return what a song is to be like; raise `ValueError` for a text without words, and as `plain_text` does."""
    if not text.strip():
        raise ValueError('the wish is empty; say what the song is to be like, such as "a sad song about rain"')
    return plain_text("wish", text)
