"""Latents to audio, song by song, with fallbacks: on the card, on the card with all else moved off, on the CPU."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress

import msgspec
import numpy as np
import torch
from torch import Tensor

from acestep.checkpoints.libraries import OobleckDecoder
from acestep.devices.base import Device
from acestep.devices.cpu import CpuDevice, cpu_dtype
from acestep.devices.out_of_memory import one_out_of_memory_error
from acestep.dit.place import StageContext
from acestep.dit.vae_decode import TileDecoder, choose_tile, decode_song, frame_bytes, ladder_from
from acestep.engine.outside import spliced
from acestep.errors import NotEnoughMemoryError
from acestep.knobs import Offload
from acestep.memory.placement import Placement
from acestep.request import LATENT_HOP, SAMPLE_RATE, DecodePath, Request, Song
from acestep.stage import Stage
from acestep.units import Progress

DECODER = "vae_decoder"

HOST_TILE = 128
"""Latent frames of a tile on the CPU: 0.5 GiB of main memory in float32 at the published width; 256 take 0.9 GiB.

8 s of music take 1.05 to 1.08 of the CPU seconds that 256 take there, and 1.01 in bfloat16. 64 take 1.2 to 1.26,
and only 5 % less memory than 128.
"""


class Decoded(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The songs, the device that decoded them, and a warning for every fallback."""

    songs: tuple[Song, ...]
    path: DecodePath
    warnings: tuple[str, ...]


def decode(request: Request, latents: Tensor, place: StageContext, progress: Progress) -> Decoded:
    """Decode host latents [batch, frames, 64] to songs.

    After an out-of-memory error the current song starts again with the next fallback; finished songs are kept. Raises
    `NotEnoughMemoryError` if even the host has too little memory.
    """
    run = _Decoding(request, latents, place, progress)
    return Decoded(path=run.decode_all(), songs=tuple(run.songs), warnings=tuple(run.warnings))


class _Decoding:
    """The decoding of one request with its fallbacks; `songs` are finished and stay."""

    def __init__(self, request: Request, latents: Tensor, place: StageContext, progress: Progress) -> None:
        self.songs: list[Song] = []
        self.warnings: list[str] = []
        self._request = request
        self._latents = latents
        self._place = place
        self._progress = progress
        self._decoder: OobleckDecoder = place.components.vae.decoder

    def decode_all(self) -> DecodePath:
        """Decode every song; return the last fallback that was needed."""
        place = self._place
        if place.device.shares_host_memory:
            self._on_host()
            return DecodePath.CPU
        if self._on_device(place.placement.use(DECODER)):
            return DecodePath.GPU
        if place.knobs.offload in (Offload.NONE, Offload.CPU):
            self.warnings.append(
                "The card ran out of memory while decoding, so everything but the decoder was moved off it; the songs"
                " are the same, and the next one starts a little later."
            )
            place.placement.release()
            alone = Placement({DECODER: self._decoder}, (), Offload.CPU_DIT, place.device)
            if self._on_device(alone.use(DECODER)):
                return DecodePath.GPU_OFFLOAD
        self.warnings.append(
            "The card has too little free memory to decode, so the processor does it, which takes many times as long;"
            " closing other programs that use the card helps."
        )
        place.placement.release()
        self._on_host()
        return DecodePath.CPU

    def _on_device(self, entering: AbstractContextManager[None]) -> bool:
        """Try to decode all songs on the card, in ever smaller tiles; return whether that worked."""
        try:
            with one_out_of_memory_error(), entering:
                return any(self._in_tiles(tile, self._place.device, self._decoder) for tile in self._tiles())
        except torch.OutOfMemoryError:
            return False

    def _tiles(self) -> Iterator[int]:
        """Yield the tiles to try; before each the cache is emptied, so that no memory of the last attempt remains."""
        device = self._place.device
        device.empty_cache()
        tile = self._place.vae_chunk or choose_tile(
            device.free_bytes(), self._request.latent_frames, frame_bytes(self._decoder)
        )
        for smaller in ladder_from(tile):
            if smaller != tile:
                device.empty_cache()
                self.warnings.append(
                    f"Decoding pieces of {_seconds(tile)} ran out of memory on the card; pieces of"
                    f" {_seconds(smaller)} are tried, which sounds the same."
                )
            yield smaller
            tile = smaller

    def _in_tiles(self, tile: int, device: Device, decoder: OobleckDecoder) -> bool:
        """Try to decode the remaining songs in tiles of this size; return whether that worked."""
        try:
            with one_out_of_memory_error():
                tile_decoder = TileDecoder(decoder, fused=device.has_triton)
            for index in range(len(self.songs), self._request.batch):
                with one_out_of_memory_error():
                    audio = decode_song(
                        tile_decoder, self._latents[index], self._request.samples, device, tile, self._check
                    )
                self.songs.append(_song(self._request, index, audio))
                self._progress(Stage.DECODE, index + 1, self._request.batch)
        except torch.OutOfMemoryError:
            # The next attempt starts after this block, because inside it the traceback keeps every temporary alive.
            return False
        return True

    def _check(self) -> None:
        self._progress(Stage.DECODE, len(self.songs), self._request.batch)

    def _on_host(self) -> None:
        decoder = self._decoder
        with suppress(MemoryError, torch.OutOfMemoryError), one_out_of_memory_error():
            if decoder.conv1.weight.dtype not in (torch.float32, cpu_dtype()):
                decoder = copy.deepcopy(decoder).to(torch.float32)
            self._in_tiles(self._place.vae_chunk or HOST_TILE, CpuDevice(), decoder)
        if len(self.songs) < self._request.batch:
            raise NotEnoughMemoryError(
                f"Neither the card nor the computer has the memory to decode the songs ({len(self.songs)} of"
                f" {self._request.batch} were finished). Close other programs or ask for shorter songs with --duration."
            )


def _song(request: Request, index: int, audio: np.ndarray) -> Song:
    """Return a decoded song, with the source's samples where they are to stay."""
    seed, source = request.seed + index, request.source_audio
    if source is None or not request.keeps_outside:
        return Song(seed=seed, audio=audio)
    return Song(seed=seed, audio=spliced(request, source, audio), keeps_level=True)


def _seconds(frames: int) -> str:
    return f"{frames * LATENT_HOP / SAMPLE_RATE:.1f} s"
