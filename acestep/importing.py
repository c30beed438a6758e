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


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Collect no garbage inside the block, and never look again at what exists after it.

    For a program whose libraries stay until it ends, before a model is loaded: what is frozen and part of a cycle is
    never freed. A collection after these imports takes half a second otherwise, and so does the end of the program.
    """
    with without_collection():
        yield
    gc.freeze()
