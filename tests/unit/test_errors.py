"""An error in one line, whatever its message is."""

import pytest

from acestep.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("out of memory", "out of memory"),
        ("\n out of memory.\nTried to allocate 2 GiB", "out of memory."),
        ("", "RuntimeError"),
        (" \n", "RuntimeError"),
    ],
)
def test_the_first_line_of_a_message_is_never_empty(message: str, line: str) -> None:
    assert first_line(RuntimeError(message)) == line
