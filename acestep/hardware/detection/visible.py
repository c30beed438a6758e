"""Which cards the environment shows to a program, by the rules of CUDA, ROCm and Level Zero. Pure.

CUDA: the CUDA C Programming Guide, "CUDA Environment Variables"; ROCm: its page "GPU isolation techniques" and the
runtime's own parser; Level Zero: its specification, "Affinity Mask".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"
HIP_VARIABLE = "HIP_VISIBLE_DEVICES"
ROCR_VARIABLE = "ROCR_VISIBLE_DEVICES"

_NUMBER = re.compile(r"\s*([+-]?)0*([0-9]+)")

_LONGEST_NUMBER = 9
"""Digits of a number that a card may have; Python refuses to read numbers of thousands of digits."""


class Twice(Enum):
    """How a runtime treats a list that names a card twice."""

    SHOWS_NOTHING = 1
    ENDS_THE_LIST = 2
    COUNTS_ONCE = 3


def cuda_visible(text: str | None, uuids: Sequence[str]) -> tuple[int, ...]:
    """Return the positions that `CUDA_VISIBLE_DEVICES` shows, in its order; None is a variable that is not set.

    The list ends at the first entry that names no card. It shows nothing if it names a card twice, even one that is not
    here. A list that begins with a UUID consists of UUIDs, complete or as a unique prefix; any other list consists of
    numbers.
    """
    if text is None:
        return tuple(range(len(uuids)))
    by_uuid = text.strip().startswith("GPU-")
    if _repeats(text, _uuid_in if by_uuid else _number_in):
        return ()
    if by_uuid:
        return _listed(text, lambda entry: _of_uuid(entry, uuids), Twice.SHOWS_NOTHING)
    return _listed(text, lambda entry: _of_number(entry, len(uuids)), Twice.SHOWS_NOTHING)


def mig_visible(text: str, names: Sequence[tuple[str, ...]]) -> int | None:
    """Return the position of the slice that a list of MIG names shows: CUDA shows a program only the first slice of it.

    Each slice has its names: its own UUID, and the older ``MIG-GPU-<board>/<instance>/<compute instance>``.
    """
    first = text.split(",")[0].strip()
    fitting = [index for index, known in enumerate(names) if any(name.startswith(first) for name in known)]
    exact = [index for index in fitting if first in names[index]]
    return next(iter(exact or (fitting if len(fitting) == 1 else ())), None)


def rocm_visible(environ: Mapping[str, str], uuids: Sequence[str]) -> tuple[int, ...]:
    """Return the positions that ROCm shows: `ROCR_VISIBLE_DEVICES` first, then `HIP_VISIBLE_DEVICES` among the rest.

    If HIP's variable is not set, HIP uses `CUDA_VISIBLE_DEVICES`. UUIDs are ``GPU-`` and 16 digits. ROCr ignores spaces
    around an entry; for HIP, a number with spaces ends the list.
    """
    shown: tuple[int, ...] = tuple(range(len(uuids)))
    if ROCR_VARIABLE in environ:
        shown = _listed(environ[ROCR_VARIABLE], lambda entry: _of_rocr(entry, uuids), Twice.ENDS_THE_LIST)
    text = environ.get(HIP_VARIABLE, environ.get(CUDA_VARIABLE))
    if text is None:
        return shown
    left = [uuids[index] for index in shown]
    return tuple(shown[index] for index in _listed(text, lambda entry: _of_hip(entry, left), Twice.COUNTS_ONCE))


def xpu_visible(text: str | None, count: int) -> tuple[int, ...]:
    """Return the positions that `ZE_AFFINITY_MASK` shows, in their own order.

    An entry is a card or, as in ``0.1``, a tile of one; an entry that names no card is skipped, and an empty mask hides
    nothing.
    """
    if not (text or "").strip():
        return tuple(range(count))
    roots = {_of_number(entry.split(".")[0], count) for entry in (text or "").split(",")}
    return tuple(index for index in range(count) if index in roots)


def _uuid_in(entry: str) -> str | None:
    return entry if entry.startswith("GPU-") else None


def _number_in(entry: str) -> str | None:
    found = _NUMBER.match(entry)
    return None if found is None or (found[1] == "-" and found[2] != "0") else found[2]


def _repeats(text: str, name_in: Callable[[str], str | None]) -> bool:
    """Return whether a list has a name twice before the first invalid entry, for which `name_in` returns None."""
    names = [name_in(entry.strip()) for entry in text.split(",")]
    named = names[: names.index(None)] if None in names else names
    return len(set(named)) < len(named)


def _listed(text: str, find: Callable[[str], int | None], twice: Twice) -> tuple[int, ...]:
    """Return the positions of a list's entries, up to the first that names nothing."""
    found: list[int] = []
    for entry in text.split(","):
        index = find(entry)
        if index is None:
            break
        if index not in found:
            found.append(index)
        elif twice is Twice.SHOWS_NOTHING:
            return ()
        elif twice is Twice.ENDS_THE_LIST:
            break
    return tuple(found)


def _of_number(entry: str, count: int) -> int | None:
    """Return the position from the number at the start of an entry, parsed as in C; None outside the range."""
    digits = _number_in(entry)
    index = int(digits) if digits and len(digits) <= _LONGEST_NUMBER else -1
    return index if 0 <= index < count else None


def _of_uuid(entry: str, uuids: Sequence[str]) -> int | None:
    """Return the only card whose UUID begins with an entry."""
    beginning = entry.strip()
    fitting = [index for index, uuid in enumerate(uuids) if uuid.startswith(beginning)]
    return fitting[0] if beginning.startswith("GPU-") and len(fitting) == 1 else None


def _of_rocr(entry: str, uuids: Sequence[str]) -> int | None:
    """Return the position that an entry means to ROCr, which ignores spaces and case."""
    beginning = entry.strip().lower()
    if not beginning.startswith("gpu-"):
        return _of_number(entry, len(uuids))
    return _of_uuid(beginning.replace("gpu-", "GPU-", 1), [uuid.lower().replace("gpu-", "GPU-", 1) for uuid in uuids])


def _of_hip(entry: str, uuids: Sequence[str]) -> int | None:
    """Return the position that an entry means to HIP, which takes a UUID or a number as it would write it itself."""
    if entry.strip().startswith("GPU-"):
        return _of_rocr(entry, uuids)
    return _of_number(entry, len(uuids)) if entry.isdecimal() and entry == _number_in(entry) else None
