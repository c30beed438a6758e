"""Latents to audio, song by song."""

from torch import Tensor

from acestep.memory.vae_decode import TILE_FRAMES, TileDecoder, decode_song
from acestep.progress import Progress
from acestep.request import DecodePath, Request, Song
from acestep.stages.place import Place


def decode(request: Request, latents: Tensor, place: Place, progress: Progress) -> tuple[tuple[Song, ...], DecodePath]:
    """The songs of latents [batch, frames, 64], and where they were decoded."""
    songs = []
    with place.placement.use("vae_decoder"):
        decoder = TileDecoder(place.components.vae.decoder)
        for index in range(request.batch):
            audio = decode_song(decoder, latents[index], request.samples, place.device, TILE_FRAMES)
            songs.append(Song(seed=request.seed + index, audio=audio))
            progress("decode", index + 1, request.batch)
    return tuple(songs), DecodePath.CPU if place.device.shares_host_memory else DecodePath.GPU
