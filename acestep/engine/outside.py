"""Keeps what lies outside the window of a repaint: the source's latents in the steps, and its samples at the end.

The shares and lengths are those of the original code (ACE-Step 1.5, its "balanced" repaint at a strength of 0.5).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from acestep.clip import FRAMES_A_SECOND, SAMPLE_RATE, Clip
from acestep.devices.base import Device
from acestep.request import Request


class Outside:
    """The latents `recorded` [1, frames, 64] of a request's source, where they stay.

    `noise_of` draws a song's noise [frames, 64] on the host, the same each time, so that none is kept.
    """

    def __init__(self, request: Request, recorded: Tensor, noise_of: Callable[[int], Tensor], device: Device) -> None:
        self._recorded = recorded
        self._noise_of = noise_of
        self._device = device
        self._window = request.window
        self._share = 1.0 - request.repaint_strength
        self._parts = tuple(
            part
            for part in (slice(0, self._window.start), slice(self._window.stop, request.latent_frames))
            if part.start < part.stop
        )

    def steps(self, steps: int) -> int:
        """Return after how many of the first steps the source is put back."""
        return round(self._share * steps)

    def put_back(self, latents: Tensor, level: float) -> None:
        """Write the source at a noise level (1 is noise, 0 the source itself) over `latents` [songs, frames, 64]."""
        for song in range(latents.shape[0]):
            fresh = self._noise_of(song)
            for part in self._parts:
                noised = self._device.upload(fresh[part], "noise").mul_(level)
                latents[song, part].copy_(noised.add_(self._recorded[0, part], alpha=1.0 - level))

    def fade(self, latents: Tensor) -> None:
        """Lead `latents` over to the source on both sides of the window; further out they are the source."""
        frames = round(FRAMES_A_SECOND * self._share)
        for part in self._parts:
            before = part.stop == self._window.start
            near = min(frames, part.stop - part.start)
            edge = slice(part.stop - near, part.stop) if before else slice(part.start, part.start + near)
            weights = torch.linspace(0, 1, near + 2)[1:-1, None]
            made = self._device.upload(weights if before else weights.flip(0).contiguous(), "noise")
            source = self._recorded[:, edge].to(latents.dtype)
            mixed = source.lerp(latents[:, edge], made)
            latents[:, part] = self._recorded[:, part].to(latents.dtype)
            latents[:, edge] = mixed


def spliced(request: Request, source: Clip, made: np.ndarray) -> np.ndarray:
    """Return the audio `made` [2, samples] in a request's window, and the samples of `source` outside it.

    On each side of the window, for `repaint_fade_s`, one leads over to the other. What is made stays within full scale.
    """
    window, fade = request.sample_window, round(request.repaint_fade_s * SAMPLE_RATE)
    song: np.ndarray = np.clip(made, -1, 1)
    heard = source.audio[:, : made.shape[1]]
    before, after = max(0, window.start - fade), min(heard.shape[1], window.stop + fade)
    for begin, end, weights in (
        (before, window.start, _ramp(window.start - before)),
        (window.stop, after, _ramp(after - window.stop)[::-1]),
    ):
        song[:, begin:end] = heard[:, begin:end] + weights * (song[:, begin:end] - heard[:, begin:end])
    song[:, :before], song[:, after : heard.shape[1]] = heard[:, :before], heard[:, after:]
    return song


def _ramp(samples: int) -> np.ndarray:
    """Weights between 0 and 1, rising as half a cosine, so that no edge is heard at either end."""
    places = np.arange(1, samples + 1) / (samples + 1)
    return np.asarray((1 - np.cos(np.pi * places)) / 2, dtype=np.float32)
