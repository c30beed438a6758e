"""Limits how long a call into a driver is waited for; a driver that hangs cannot be interrupted."""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

_Result = TypeVar("_Result")

DRIVER_LONGEST_S: Final = 30.0
"""Seconds that a driver may take to start: on a server with eight cards it takes up to ten."""


def within(longest_s: float, name: str, call: Callable[[], _Result]) -> _Result:
    """Return the result of a call, or raise what it raises; `TimeoutError` with the reason if it takes too long.

    The call then goes on in its thread, which does not keep the process from ending. As long as it does, another call
    of the same `name` is not tried. Calls of several threads do not disturb each other.
    """
    overdue = f"{name} hangs"
    if any(thread.name == overdue for thread in threading.enumerate()):
        raise TimeoutError("an earlier call still hangs")
    results: list[_Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(longest_s)
    for error in errors:
        raise error
    if not results:
        thread.name = overdue
        raise TimeoutError(f"it takes more than {longest_s:g} s")
    return results[0]
