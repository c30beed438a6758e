"""An adapter as a user names it: its file or folder, and its scale."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import msgspec

from acestep.errors import UsageError
from acestep.fused_adapter import MOST_SCALE


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA or LoKr to use: a safetensors file, or a folder with one. `scale` multiplies what it changes.

    It is `fused` into the weights, or stays apart from them. Raises `ValueError` for a scale beyond `MOST_SCALE`, and
    for a path that is not UTF-8, which no JSON document and no tag could hold.
    """

    path: Path
    scale: float = 1.0
    fused: bool = True

    @property
    def name(self) -> str:
        """The name of its file or folder, without its place."""
        return self.path.absolute().name

    def __post_init__(self) -> None:
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise ValueError(f"the path of the adapter {str(self.path)!r} is not UTF-8; rename its file") from None
        if not abs(self.scale) <= MOST_SCALE:
            raise ValueError(
                f"the scale of an adapter must be -{MOST_SCALE:g} to {MOST_SCALE:g}, got {self.scale:g} for {self.path}"
            )


def adapter_of(text: str) -> Adapter:
    """Return the adapter that ``FILE|DIR[:SCALE]`` names; raise `UsageError` for a blank text, and as `Adapter` does.

    What follows the last colon is a scale if it is a number, else a part of the path.
    """
    path, _, end = text.rpartition(":")
    scale = _number(end) if path else None
    place = text if scale is None else path
    if not place.strip():
        raise UsageError("the name of an adapter is empty; give its file or folder, such as folk.safetensors:0.8")
    try:
        return Adapter(path=Path(place).expanduser(), scale=1.0 if scale is None else scale)
    except ValueError as error:
        raise UsageError(str(error)) from None


def adapters_from(given: Iterable["str | PathLike[str] | Adapter"], *, unfused: bool = False) -> tuple[Adapter, ...]:
    """Return the adapters that a Python program names: ``FILE|DIR[:SCALE]`` as text, paths, or values of `Adapter`.

    `unfused` ones, all of them, stay apart from the weights.
    """
    adapters = tuple(
        one if isinstance(one, Adapter) else adapter_of(one) if isinstance(one, str) else Adapter(path=Path(one))
        for one in given
    )
    return all_unfused(adapters) if unfused else adapters


def all_unfused(adapters: Iterable[Adapter]) -> tuple[Adapter, ...]:
    """Return the adapters, each apart from the weights."""
    return tuple(msgspec.structs.replace(one, fused=False) for one in adapters)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
