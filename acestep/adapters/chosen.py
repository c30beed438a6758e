"""Adapters that are chosen for one request among those of a server."""

from collections.abc import Mapping, Sequence

import msgspec

from acestep.adapters.choice import Adapter
from acestep.errors import UsageError


def adapters_named(wishes: Mapping[str, float | None], adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Return the adapters with the names of `wishes`, at the scales given there; None leaves an adapter its own.

    Raises `UsageError` for a name that none of them has.
    """
    known = {one.name: one for one in reversed(adapters)}
    if strange := [name for name in wishes if name not in known]:
        names = ", ".join(dict.fromkeys(one.name for one in adapters)) or "none"
        raise UsageError(f"adapters must be some of {names}, got {strange[0][:80]!r}")
    return tuple(
        known[name] if scale is None else msgspec.structs.replace(known[name], scale=scale)
        for name, scale in wishes.items()
    )


def switched_on(chosen: Sequence[Adapter], adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Return the chosen adapters, and of the others those that stay apart, at scale 0: they stay loaded."""
    paths = {one.path for one in chosen}
    off = (msgspec.structs.replace(one, scale=0.0) for one in adapters if not one.fused and one.path not in paths)
    return (*chosen, *off)
