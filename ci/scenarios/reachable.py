"""The objects that the modules of a package hold, which the collector does not list when they are frozen."""

import gc
import sys
from collections import deque
from functools import _lru_cache_wrapper, partial
from types import CellType, FunctionType, MethodType
from typing import Any, Final

_HOLDERS: Final = (dict, list, tuple, set, frozenset, deque, CellType, MethodType, partial, _lru_cache_wrapper)


def of_modules(package: str) -> list[object]:
    """Return what the modules of a package hold in variables, containers, and objects and functions of the package."""
    inside = f"{package}."
    modules = [module for name, module in [*sys.modules.items()] if f"{name}.".startswith(inside)]
    left: list[object] = [vars(module) for module in modules]
    seen, found = {id(thing) for thing in left}, []
    kinds: dict[type, bool | None] = {}
    while left:
        thing = left.pop()
        found.append(thing)
        for held in gc.get_referents(thing):
            if id(held) in seen:
                continue
            kind = type(held)
            if kind not in kinds:
                # Of classes and functions each one tells, of other things their class.
                kinds[kind] = None if issubclass(kind, type | FunctionType) else _is_held(held, inside)
            known = kinds[kind]
            if _is_held(held, inside) if known is None else known:
                seen.add(id(held))
                # The variables of other modules, which functions lead to, are theirs.
                if not (isinstance(held, dict) and "__spec__" in held):
                    left.append(held)
    return found


def _is_held(thing: Any, inside: str) -> bool:
    return isinstance(thing, _HOLDERS) or _is_of(thing, inside)


def _is_of(thing: Any, inside: str) -> bool:
    """Return whether an object, a class or a function is one of the package."""
    of = thing.__dict__ if isinstance(thing, type) else {}
    module = of.get("__module__") or getattr(type(thing), "__module__", "")
    if module in ("builtins", "") and type(thing).__name__ == "function":
        module = thing.__module__
    return f"{module}.".startswith(inside)
