"""Libraries from the package's extras: the error text and the install command if one is missing."""

from importlib import import_module

from acestep.errors import RunFailedError
from acestep.version import install_command

OF_EXTRAS = {"matplotlib": "calibrate", "ray": "ray"}
"""Library -> the extra in pyproject.toml that brings it: pages and plots of measurements, and cards elsewhere."""


class MissingExtraError(RunFailedError):
    """A command needs a library that comes with an extra which is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"this needs {library}, which is not installed; it comes with the extra {extra}:"
            f" {install_command(extra)} (in a checkout: pip install -e '.[{extra}]')"
        )


def require_extra(*libraries: str) -> None:
    """Import libraries of `OF_EXTRAS`; raise `MissingExtraError` for the first that is not installed."""
    for library in libraries:
        try:
            import_module(library)
        except ImportError as error:
            # A library that is installed but lacks a dependency is a different error.
            if error.name not in (None, library):
                raise
            raise MissingExtraError(library, OF_EXTRAS[library]) from error
