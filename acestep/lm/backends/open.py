"""Chooses the library that runs the language model: the requested one if it starts, otherwise PyTorch."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from acestep.devices.base import Device
from acestep.devices.out_of_memory import free_unused
from acestep.errors import first_line
from acestep.knobs import Backend as Library
from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.backends.mlx import MlxBackend
from acestep.lm.backends.vllm import VllmBackend
from acestep.lm.backends.vllm_memory import Pool
from acestep.lm.job import Job
from acestep.version import install_command

_LOG = logging.getLogger(__name__)

REASON_CHARACTERS: Final = 200
"""Characters of another library's error text that are kept for a warning."""

_EXTRAS: Final = {"vllm": "vllm", "mlx": "mlx", "mlx_lm": "mlx"}
"""Module -> the extra that brings it."""

_SYSTEMS: Final = {"vllm": ("linux", "Linux"), "mlx": ("darwin", "macOS")}
"""Extra -> the system that it exists for, as Python and as people call it."""

_NAMES: Final = {Library.VLLM: "vLLM", Library.MLX: "MLX"}


class Restful(LmBackend, Protocol):
    """A backend that keeps its own weights and can free the device between two uses."""

    def rest(self) -> None:
        """Free the device until the next `write`."""
        ...


class Opener:
    """Opens the backend for the language model in `folder`, once for each use.

    vLLM (with a cache of the size `pool`) and MLX start at the first use and free the device between uses. If one of
    them cannot start, for any reason, its memory is freed, `warn` is called once, and PyTorch is used from then on.
    """

    def __init__(self, library: Library, folder: Path, pool: Pool, warn: Callable[[str], None]) -> None:
        self._library = library
        self._folder = folder
        self._pool = pool
        self._warn = warn
        self._kept: Restful | None = None

    def open(self, device: Device, pt: Callable[[], LmBackend]) -> LmBackend:
        """Return a backend on `device`; its `close` ends one use. `pt` makes the PyTorch backend."""
        if self._library is Library.PT:
            return pt()
        problem = self._start(device) if self._kept is None else None
        if self._kept is None:
            free_unused(device)
            name, self._library = _NAMES[self._library], Library.PT
            self._warn(
                f"{name} cannot run the language model here ({problem}). PyTorch runs it instead: the songs are no "
                "worse, they only take longer to plan."
            )
            return pt()
        return _Lent(self._kept)

    def close(self) -> None:
        """Free what was kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _start(self, device: Device) -> str | None:
        """Start the requested library; return why that failed, or None on success."""
        try:
            if self._library is Library.VLLM:
                self._kept = VllmBackend(self._folder, device, self._pool)
            else:
                self._kept = MlxBackend(self._folder)
        except ModuleNotFoundError as error:
            return _why_missing(str(error.name))
        except Exception as error:  # These libraries can fail at start in too many ways to list.
            _LOG.info("%s did not start", self._library, exc_info=True)
            return first_line(error)[:REASON_CHARACTERS]
        return None


def _why_missing(module: str, system: str = sys.platform) -> str:
    """Return that a module is not installed and how to install it, or the only system on which its library runs."""
    extra = _EXTRAS.get(module)
    if extra is None:
        return f"{module} is not installed"
    needed, named = _SYSTEMS[extra]
    if system != needed:
        return f"{_NAMES[Library(extra)]} runs only on {named}"
    return f"{module} is not installed: {install_command(extra)}"


class _Lent:
    """A kept backend during one use; at the end of the use it frees the device."""

    def __init__(self, kept: Restful) -> None:
        self._kept = kept

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        return self._kept.write(jobs, written)

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        return self._kept.cache_bytes(jobs)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        self._kept.rehearse(jobs)

    def close(self) -> None:
        self._kept.rest()
