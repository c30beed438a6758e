"""What a package keeps in its modules is found although the collector does not list it."""

import gc
import sys
from types import ModuleType

import numpy as np
import pytest

from ci.scenarios.reachable import of_modules

SOURCE = """
from functools import lru_cache

LISTED, NAMED = [], {}

class Keeper:
    shared = []
    def __init__(self):
        self.kept = []

keeper = Keeper()

def beside(): ...

def _closed():
    cell = []
    return lambda thing: cell.append(thing)

close_over = _closed()

@lru_cache
def cached(number):
    return MADE[number]
"""
WAYS = {
    "a list": "LISTED.append(thing)",
    "a dict": "NAMED.setdefault('kept', []).append(thing)",
    "an object": "keeper.kept.append(thing)",
    "a class": "Keeper.shared.append(thing)",
    "a function": "beside.kept = thing",
    "a closure": "close_over(thing)",
    "a cache": "MADE = {0: thing}; cached(0); del MADE",
}


@pytest.mark.parametrize("way", WAYS)
def test_an_array_is_found_however_a_module_keeps_it(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("keeping.deep")
    monkeypatch.setitem(sys.modules, "keeping.deep", module)
    exec(SOURCE, vars(module))  # noqa: S102 our own source
    thing = np.zeros(8)
    vars(module)["thing"] = thing
    exec(WAYS[way], vars(module))  # noqa: S102
    del vars(module)["thing"]
    held = [referent for found in of_modules("keeping") for referent in gc.get_referents(found)]
    assert any(referent is thing for referent in held)


def test_another_package_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    module, other = ModuleType("keeping"), ModuleType("keepings")
    thing = np.zeros(8)
    vars(other).update(kept=[thing])
    vars(module).update(other=other)
    monkeypatch.setitem(sys.modules, "keeping", module)
    monkeypatch.setitem(sys.modules, "keepings", other)
    assert not any(thing is held for found in of_modules("keeping") for held in gc.get_referents(found))
