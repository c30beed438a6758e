"""Log lines that `-v` shows on stderr: one for each step of the program's input and output, with the module's name.

Modules log to a logger of their own name. Without `-v` nothing is shown: what a musician must know is a warning.
"""

import logging
import sys

ROOT_LOGGER = "acestep"
"""The parent logger of all modules."""

LINE = "%(asctime)s %(name)s: %(message)s"
TIME = "%H:%M:%S"


class _ToStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the stderr that is set when the command starts."""


def show_logs(verbosity: int) -> None:
    """Show no log lines for 0, steps for 1, and details too for 2 and more; replaces an earlier setting."""
    logger = logging.getLogger(ROOT_LOGGER)
    for handler in [one for one in logger.handlers if isinstance(one, _ToStderr)]:
        logger.removeHandler(handler)
    logger.setLevel({0: logging.NOTSET, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    if verbosity:
        handler = _ToStderr(sys.stderr)
        handler.setFormatter(logging.Formatter(LINE, TIME))
        logger.addHandler(handler)
