"""Which library runs the language model: the one asked for where it starts, PyTorch where it does not."""

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from acestep.devices.base import Device
from acestep.knobs import Backend as Library
from acestep.lm.backends.base import LmBackend, StepsWritten
from acestep.lm.backends.mlx import MlxBackend
from acestep.lm.backends.vllm import VllmBackend
from acestep.lm.backends.vllm_memory import Pool
from acestep.lm.job import Job

_LOG = logging.getLogger(__name__)

REASON_CHARACTERS: Final = 200
"""As much of another library's complaint as fits a warning."""

_NAMES: Final = {Library.VLLM: "vLLM", Library.MLX: "MLX"}


class Restful(LmBackend, Protocol):
    """A backend with weights of its own, which others can have the room of between two uses."""

    def rest(self) -> None:
        """Leave the device to others until the next `write`."""
        ...


class Opener:
    """Opens what runs the language model in `folder` for one use after another.

    vLLM (with room for `pool`) and MLX start at the first use and rest between uses. When one of them cannot start, for
    whatever reason, what it had is given back, `warn` is told once, and PyTorch is used from then on.
    """

    def __init__(self, library: Library, folder: Path, pool: Pool, warn: Callable[[str], None]) -> None:
        self._library = library
        self._folder = folder
        self._pool = pool
        self._warn = warn
        self._kept: Restful | None = None

    def open(self, device: Device, pt: Callable[[], LmBackend]) -> LmBackend:
        """A backend on `device`, `close` of which ends one use; `pt` makes the one through PyTorch."""
        if self._library is Library.PT:
            return pt()
        problem = self._start(device) if self._kept is None else ""
        if self._kept is None:
            # Here, where no traceback holds what was half made.
            gc.collect()
            device.empty_cache()
            name, self._library = _NAMES[self._library], Library.PT
            self._warn(
                f"{name} cannot run the language model here ({problem}). PyTorch runs it instead: the songs are no "
                "worse, they only take longer to plan."
            )
            return pt()
        return _Lent(self._kept)

    def close(self) -> None:
        """Give back what was kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _start(self, device: Device) -> str:
        """Start what was asked for; why that was impossible, "" where it was not."""
        try:
            if self._library is Library.VLLM:
                self._kept = VllmBackend(self._folder, device, self._pool)
            else:
                self._kept = MlxBackend(self._folder)
        except ModuleNotFoundError as error:
            return f"{error.name} is not installed"
        except Exception as error:  # Their start-up fails in more ways than can be listed.
            _LOG.info("%s did not start", self._library, exc_info=True)
            said = str(error).strip().splitlines()
            return (said[0] if said else type(error).__name__)[:REASON_CHARACTERS]
        return ""


class _Lent:
    """A kept backend for one use, after which it rests."""

    def __init__(self, kept: Restful) -> None:
        self._kept = kept

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        """The tokens written for each job."""
        return self._kept.write(jobs, written)

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Bytes of keys and values for these jobs at their longest."""
        return self._kept.cache_bytes(jobs)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """What takes most memory in writing these jobs."""
        self._kept.rehearse(jobs)

    def close(self) -> None:
        """Let it rest."""
        self._kept.rest()
