"""Adapters that are chosen for one request among those of a server."""

from collections.abc import Mapping, Sequence

import msgspec

from acestep.adapters.choice import Adapter
from acestep.errors import UsageError


def require_own_names(adapters: Sequence[Adapter]) -> None:
    """Raise `UsageError` if two adapters have the same name, because a request chooses them by name."""
    names = [one.name for one in adapters]
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise UsageError(
            f"two adapters have the name {twice[0]!r}, and requests choose adapters by name; rename one of them, or"
            " leave it out"
        )


def adapters_named(wishes: Mapping[str, float | None], adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Return those adapters whose names `wishes` has, at the scales given there; None leaves an adapter its own.

    They keep the order of `adapters`, so the order of the wishes changes no song. Raises `UsageError` for a name that
    none of them has.
    """
    known = [one.name for one in adapters]
    if strange := [name for name in wishes if name not in known]:
        raise UsageError(f"adapters must be some of {', '.join(known) or 'none'}, got {strange[0][:80]!r}")
    return tuple(_at_scale(one, wishes[one.name]) for one in adapters if one.name in wishes)


def switched_on(chosen: Sequence[Adapter], adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Return the chosen adapters, and of the others those that stay apart, at scale 0: they stay loaded."""
    paths = {one.path for one in chosen}
    off = (msgspec.structs.replace(one, scale=0.0) for one in adapters if not one.fused and one.path not in paths)
    return (*chosen, *off)


def _at_scale(adapter: Adapter, scale: float | None) -> Adapter:
    return adapter if scale is None else msgspec.structs.replace(adapter, scale=scale)
