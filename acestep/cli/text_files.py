"""Text files that an option names with a leading @: UTF-8, or an encoding that the file itself names."""

import codecs
import re
from pathlib import Path

from acestep.errors import InvalidInputError
from acestep.regular_file import content_of
from acestep.units import MIB

MOST_TEXT_BYTES = 4 * MIB
"""Size limit of a text: ten times the audio codes of the longest song."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before UTF-16: the mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_NAMES = {"utf-8": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32-le": "UTF-32", "utf-32-be": "UTF-32"}

_SWITCHES = re.compile(r"\x1b[$(]")
"""How ISO-2022-JP and its relatives begin another set of characters; no UTF-8 text has it."""

_BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")
"""How new and old files of word processors, and archives begin."""

_DOCUMENT = re.compile(r"[\s\ufeff]*({\\rtf|%PDF-|<!doctype|<\?xml|<!--|<html\b|<svg\b)", re.IGNORECASE)
"""How RTF, PDF, XML and HTML begin, in any encoding."""

_AS_UTF_8 = "save it as UTF-8"


def read_text(path: Path) -> str:
    """Return the text in a file, with line feeds as line ends; raise `InvalidInputError` with what to do."""
    content = _content(path)
    mark, encoding = next(
        ((mark, name) for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), (b"", "utf-8")
    )
    # A document may hold bytes that are no text, so errors of decoding come after this.
    if content.startswith(_BINARY) or _DOCUMENT.match(content[len(mark) :].decode(encoding, errors="replace")):
        raise InvalidInputError(path, f"is a document with fonts and layout, or an archive; {_AS_UTF_8} plain text")
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        place = len(mark) + error.start
        raise InvalidInputError(path, f"is not {_NAMES[encoding]} text (see its byte {place:,}); {_AS_UTF_8}") from None
    if "\0" in text:
        raise InvalidInputError(
            path, f"holds NUL characters, as UTF-16 without a mark and files that are no text do; {_AS_UTF_8}"
        )
    if not mark and _SWITCHES.search(text):
        raise InvalidInputError(path, f"is text in ISO-2022, as old mail programs write it; {_AS_UTF_8}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _content(path: Path) -> bytes:
    try:
        return content_of(path, MOST_TEXT_BYTES, "lyrics or audio codes", from_shell=True)
    except FileNotFoundError:
        raise InvalidInputError(path, "does not exist; give the name of a text file") from None
    except OSError as error:
        raise InvalidInputError(path, f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise InvalidInputError(repr(str(path)), "is no file name") from None
