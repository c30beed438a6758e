"""What PyTorch's libraries read from the environment when they are imported."""

import os
from collections.abc import MutableMapping

DEFAULTS = {
    # From 2.13 on, torch warns of every allocation that fails, even if its retry succeeds.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # A thread that waits for work gives its core away. By default it keeps it busy, and beside other programs a song
    # then takes up to ten times as long.
    "OMP_WAIT_POLICY": "passive",
}


def set_defaults(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set; must be called before torch is imported."""
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
