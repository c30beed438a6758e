"""The header of a safetensors file, read without torch and compared with the size of the file.

A file is 8 bytes with the length of the header (little-endian), the header (a JSON object), and the tensors one after
another without gaps: https://huggingface.co/docs/safetensors.
"""

import math
from pathlib import Path
from typing import Annotated

import msgspec

from acestep.errors import InvalidInputError
from acestep.regular_file import open_regular

MAX_HEADER_BYTES = 100_000_000
"""The longest header that the library reads; those of real files have less than 1 MB."""

_BITS = dict.fromkeys(("F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 8)
_BITS |= dict.fromkeys(("F16", "BF16", "I16", "U16"), 16)
_BITS |= dict.fromkeys(("F32", "I32", "U32"), 32) | dict.fromkeys(("F64", "I64", "U64", "C64"), 64)
"""Bits of one value. A tensor of a type that is not listed is compared by its offsets alone."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""The types in which weights are stored."""

_METADATA = "__metadata__"
"""The field of a header that is no tensor: texts by name."""

_UNREADABLE = "is no safetensors file, or is damaged: its header cannot be read"

_Count = Annotated[int, msgspec.Meta(ge=0)]


class StoredTensor(msgspec.Struct, frozen=True):
    """One tensor of a file: its type (``"BF16"``), its shape, and where its bytes begin and end after the header."""

    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]

    @property
    def values(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name, without their values.

    Raises `InvalidInputError` for a file that is missing, empty, cut short, or longer than its header says.
    """
    fields, held = _fields(file)
    fields.pop(_METADATA, None)
    try:
        tensors = {name: msgspec.json.decode(raw, type=StoredTensor) for name, raw in fields.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError(file, _UNREADABLE) from None
    if not tensors:
        raise InvalidInputError(file, "is damaged: its header names no weights")
    _require_whole(file, tensors, held)
    return tensors


def read_metadata(file: Path) -> dict[str, str]:
    """Return the texts that the header of a safetensors file has beside its tensors; raise as `read_header` does."""
    fields, _ = _fields(file)
    try:
        return msgspec.json.decode(fields.get(_METADATA, b"{}"), type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError(file, _UNREADABLE) from None


def _fields(file: Path) -> tuple[dict[str, msgspec.Raw], int]:
    """The fields of the header, undecoded, and the number of bytes that follow it."""
    try:
        size = file.stat().st_size
        with open_regular(file) as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(length) if length <= min(MAX_HEADER_BYTES, size) else b""
    except OSError as error:
        raise InvalidInputError(file, f"cannot be read ({error.strerror or error})") from None
    if size == 0:
        raise InvalidInputError(file, "is empty (0 bytes)")
    if size < 8 or (length <= MAX_HEADER_BYTES and size < 8 + length):
        raise InvalidInputError(file, f"is damaged or cut short: it ends within its header, after {size:,} bytes")
    try:
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw]), size - 8 - length
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError(file, _UNREADABLE) from None


def _require_whole(file: Path, tensors: dict[str, StoredTensor], held: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, stop = tensor.data_offsets
        bits = _BITS.get(tensor.dtype)
        if begin != end or stop < begin or (bits is not None and (stop - begin) * 8 != tensor.values * bits):
            raise InvalidInputError(file, f"is damaged: the place of {name} does not agree with its size")
        end = stop
    if held < end:
        raise InvalidInputError(file, f"is damaged or cut short: it holds {held:,} of {end:,} bytes of weights")
    if held > end:
        raise InvalidInputError(file, f"is damaged: {held - end:,} bytes follow the weights that its header tells of")
