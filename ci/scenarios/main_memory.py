"""What a program keeps in main memory: the tensors and arrays that can still be reached."""

import gc
from itertools import compress

import msgspec
import numpy as np
from torch import Tensor

from ci.scenarios.reachable import of_modules

OWN_PACKAGE = "acestep"
"""What is judged: it may keep arrays in what it made when it was imported."""

_COUNTED = (Tensor, np.ndarray, tuple, msgspec.Struct)
"""What has bytes in main memory, or may hold such things unseen."""


def host_bytes() -> int:
    """Bytes of the tensors and arrays in main memory that were made since `gc.freeze`, or that `acestep` holds."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    # Not one list display: it would hold itself, and then stay with all that is in it.
    left = gc.get_objects()
    left += of_modules(OWN_PACKAGE)
    kinds: dict[type, type | None] = {}
    while left:
        # All at once, and most things by their type alone: there are hundreds of thousands.
        things, left = [*left, *gc.get_referents(*left)], []
        types = [*map(type, things)]
        for kind in {*types} - kinds.keys():
            kinds[kind] = next((one for one in _COUNTED if issubclass(kind, one)), None)
        for held in compress(things, map(kinds.__getitem__, types)):
            counted = kinds[type(held)]
            if counted is Tensor:
                if held.is_mkldnn:
                    # Such a tensor has no storage that can be asked for.
                    found[id(held)] = held.nbytes
                elif held.device.type == "cpu":
                    storage = held.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
            elif counted is np.ndarray:
                while isinstance(held.base, np.ndarray):
                    held = held.base
                found[held.ctypes.data] = held.nbytes
            elif not gc.is_tracked(held) and id(held) not in seen:
                # The collector does not list what can be in no cycle.
                seen.add(id(held))
                left.append(held)
    return sum(found.values())
