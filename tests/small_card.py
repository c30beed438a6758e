"""A CPU that behaves like a small card: moves are copies, and it refuses when a test wants it to."""

import torch
from torch import Tensor

from acestep.checkpoints.build import build
from acestep.checkpoints.components import Components
from acestep.devices.cpu import CpuDevice
from acestep.engine.pipeline import prepare
from acestep.knobs import Knobs
from acestep.units import GIB

ALWAYS = 10**9
"""More refusals than a test asks for."""


def tiny_components() -> Components:
    """The tiny model, ready to run unquantized."""
    made = build("tiny", dtype=torch.float32)
    prepare(made, Knobs())
    return made


class SmallCard(CpuDevice):
    """Refuses the first `latent_refusals` tiles to decode, and passes of more than `songs_at_once`.

    The first `denoise_refusals` passes and `audio_refusals` tiles of audio are refused whatever their size.
    """

    shares_host_memory = False

    def __init__(
        self,
        *,
        free_bytes: int = GIB,
        latent_refusals: int = 0,
        songs_at_once: int = 64,
        denoise_refusals: int = 0,
        audio_refusals: int = 0,
    ) -> None:
        self.free = free_bytes
        self.latent_refusals = latent_refusals
        self.denoise_refusals = denoise_refusals
        self.audio_refusals = audio_refusals
        self.songs_at_once = songs_at_once
        self.uploaded: list[str] = []
        self._songs = 0

    def begin_stage(self, name: str) -> None:
        self._songs = 0

    def upload(self, host: Tensor, owner: str) -> Tensor:
        if owner == "latents" and self.latent_refusals:
            self.latent_refusals -= 1
            raise torch.OutOfMemoryError("no room for a tile")
        if owner == "noise":
            self._songs += 1
            if self._songs > self.songs_at_once or self.denoise_refusals:
                self.denoise_refusals = max(0, self.denoise_refusals - 1)
                raise torch.OutOfMemoryError("no room for a song")
        if owner == "audio" and self.audio_refusals:
            self.audio_refusals -= 1
            raise torch.OutOfMemoryError("no room for a tile of audio")
        self.uploaded.append(owner)
        return host.clone()

    def reserve(self, n_bytes: int, owner: str) -> Tensor:
        self.uploaded.append(owner)
        return super().reserve(n_bytes, owner)

    def free_bytes(self) -> int:
        return self.free
