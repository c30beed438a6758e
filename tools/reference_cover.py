"""A weak cover as the original makes it: it drops the source after a share of the steps; ours blends velocities."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
from torch import Tensor

from acestep.clip import FRAMES_A_SECOND
from acestep.dit.denoiser import Denoiser
from acestep.dit.place import StageContext
from acestep.engine import denoise as denoise_stage
from acestep.engine.encode import encode
from acestep.request import Request, Task


@contextmanager
def dropping_the_source(request: Request, place: StageContext, times: Sequence[float]) -> Iterator[None]:
    """Denoise inside the block as the original denoises a cover of less than full strength.

    From step ``int(strength * steps)`` on, condition and context are those of the same words without a source.
    """
    words = msgspec.structs.replace(
        request,
        task=Task.TEXT2MUSIC,
        duration_s=request.latent_frames / FRAMES_A_SECOND,
        source_audio=None,
        audio_codes=(),
        cover_strength=1.0,
        cover_noise=0.0,
    )
    alone = encode(words, place)
    following = set(times[: int(request.cover_strength * len(times))])

    class Dropping(Denoiser):
        """Answers with the words alone once the source is dropped; the unguided condition is embedded second."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._words = Denoiser.embed(self, alone.condition)
            self._covering: Tensor | None = None

        def embed(self, condition: Tensor) -> Tensor:
            """Embed a condition, and note the first."""
            embedded = super().embed(condition)
            if self._covering is None:
                self._covering = embedded
            return embedded

        def velocity(self, latents: Tensor, context: Tensor, condition: Tensor, timestep: float) -> Tensor:
            """Return the velocity, after the source was dropped without it."""
            if timestep not in following:
                context = alone.context
                condition = self._words if condition is self._covering else condition
            return super().velocity(latents, context, condition, timestep)

    with patch.object(denoise_stage, "Denoiser", Dropping):
        yield
