"""Imports of large libraries, without garbage collection while they run."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect no garbage inside the block.

    Importing torch and gradio creates millions of objects, among which Python looks for garbage again and again; that
    takes a sixth of the time of the imports. Nearly all of these objects stay.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
