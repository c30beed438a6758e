"""A scenario ends in time, although the program that serves tells no address."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acestep.errors import NotMeasuredError
from ci.scenarios import entry_points


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_program_that_tells_no_address_is_ended(
    seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_points, "ADDRESS_SECONDS", 0.05)
    monkeypatch.setattr(entry_points, "_acestep", lambda *_: time.sleep(seconds))
    with pytest.raises(NotMeasuredError, match="`acestep serve` told no address"):
        entry_points.by_server((), tmp_path)
