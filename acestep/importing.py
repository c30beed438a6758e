"""Imports of large libraries, without garbage collection while they run."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect no garbage inside the block.

    Importing torch's and gradio's millions of objects makes Python look for garbage among them again and again, which
    takes a sixth of the time of the imports. Nearly all of these objects stay.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
