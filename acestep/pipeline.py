"""The stages of a song in order: encode the words, denoise the latents, decode the audio.

Nothing here reads a value back from the device: lengths, schedules and masks come from Python numbers, so the same
code runs on a card, on the CPU, and on meta tensors when the simulator counts what it would take.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from acestep.devices.base import Device
from acestep.errors import RunFailedError
from acestep.knobs import Knobs
from acestep.memory.placement import TRANSFORMER, Placement
from acestep.memory.quantize import quantize
from acestep.memory.vae_decode import TILE_FRAMES, TileDecoder, decode_song, fold_weight_norm
from acestep.models.attention import Kernels
from acestep.models.components import Components
from acestep.models.conditions import TIMBRE_FRAMES, ConditionEncoder
from acestep.models.denoiser import Denoiser
from acestep.models.prompts import lyric_prompt, text_prompt
from acestep.models.sampler import Guidance, guidance_for, noise, schedule, steps_for
from acestep.request import (
    MAX_LYRIC_TOKENS,
    MAX_TEXT_TOKENS,
    DecodePath,
    Request,
    Result,
    Song,
    StageReport,
)

Progress = Callable[[str, int, int], None]
"""Called with a stage's name and how many of how many parts of it are done; may raise to stop the run."""


def prepare(components: Components, knobs: Knobs) -> None:
    """Bring freshly loaded weights into the form they run in: weight norm folded, linear layers quantised."""
    fold_weight_norm(components.vae)
    if knobs.quantization is not None:
        quantize(components.transformer, knobs.quantization)


class Pipeline:
    """Songs from requests, with prepared weights, placed on a device as the knobs say."""

    def __init__(self, components: Components, knobs: Knobs, device: Device) -> None:
        self.components = components
        self.knobs = knobs
        self.device = device
        blocks = list(components.transformer.layers)
        self.placement = Placement(components.modules(), blocks, knobs.offload, device)
        self.placement.settle()

    def close(self) -> None:
        """Take everything off the device; the pipeline is of no use afterwards."""
        self.placement.release()

    @torch.no_grad()
    def generate(self, request: Request, *, strict: bool = False, progress: Progress | None = None) -> Result:
        """Make the songs of a request.

        `strict` is for probes: an out-of-memory error comes out as it is instead of as `RunFailedError` with advice.
        """
        try:
            return self._run(request, progress or _silent)
        except torch.OutOfMemoryError as error:
            if strict:
                raise
            problem = str(error).splitlines()[0]
        # Outside the except block: inside it the traceback would keep every temporary of the failed run alive.
        gc.collect()
        self.device.empty_cache()
        raise RunFailedError(
            f"The card ran out of memory ({problem}). Try fewer songs at once, a shorter song, or more offload,"
            " for example `--batch 1 --offload cpu+dit --quantization int8`."
        )

    def _run(self, request: Request, progress: Progress) -> Result:
        stages: list[StageReport] = []
        with self._stage("encode", 1, stages):
            condition, unguided, context = self._encode(request)
            progress("encode", 1, 1)
        with self._stage("denoise", request.batch, stages):
            latents = self._denoise(request, condition, unguided, context, progress)
        del condition, unguided, context
        with self._stage("decode", 1, stages):
            songs = tuple(self._decode(request, latents, progress))
        return Result(
            songs=songs,
            stages=tuple(stages),
            songs_per_pass=request.batch,
            decode_path=DecodePath.CPU if self.device.shares_host_memory else DecodePath.GPU,
            warnings=(),
        )

    @contextmanager
    def _stage(self, name: str, songs_per_pass: int, reports: list[StageReport]) -> Iterator[None]:
        self.device.synchronize()
        self.device.empty_cache()
        self.device.begin_stage(name)
        started = time.perf_counter()
        allocated = reserved = 0
        try:
            yield
            self.device.synchronize()
        finally:
            seconds = time.perf_counter() - started
            allocated, reserved = self.device.end_stage()
            reports.append(
                StageReport(
                    name=name,
                    seconds=seconds,
                    songs_per_pass=songs_per_pass,
                    peak_allocated_bytes=allocated,
                    peak_reserved_bytes=reserved,
                )
            )

    def _encode(self, request: Request) -> tuple[Tensor, Tensor, Tensor]:
        """The condition, its unguided counterpart, and the context latents [1, frames, 128]."""
        parts, place = self.components, self.placement
        text_ids = parts.tokenizer.encode(text_prompt(request), MAX_TEXT_TOKENS)
        lyric_ids = parts.tokenizer.encode(lyric_prompt(request), MAX_LYRIC_TOKENS)
        with place.use("text_encoder"):
            ids = self.device.upload(torch.tensor([text_ids]), "prompt")
            text = parts.text_encoder(
                input_ids=ids,
                position_ids=torch.arange(len(text_ids), device=self.device.torch_device)[None],
                attention_mask={"full_attention": None},
                use_cache=False,
            ).last_hidden_state
            lyrics = parts.text_encoder.get_input_embeddings()(self.device.upload(torch.tensor([lyric_ids]), "prompt"))
        with place.use("condition_encoder"):
            encoder = ConditionEncoder(
                parts.condition_encoder, self._kernels(), prepend_timbre_token=parts.variant.is_xl
            )
            silence = parts.condition_encoder.silence_latent.to(text.dtype)
            condition = encoder.encode(text, lyrics, silence[:, :TIMBRE_FRAMES])
            repeats = -(-request.latent_frames // silence.shape[1])
            source = silence.repeat(1, repeats, 1)[:, : request.latent_frames]
            context = torch.cat([source, torch.ones_like(source)], dim=-1)
            return condition, encoder.unguided().clone(), context

    def _denoise(
        self, request: Request, condition: Tensor, unguided: Tensor, context: Tensor, progress: Progress
    ) -> Tensor:
        """Clean latents [batch, frames, 64] in float32."""
        variant, device = self.components.variant, self.device
        channels = context.shape[-1] // 2
        latents = torch.empty(request.batch, request.latent_frames, channels, device=device.torch_device)
        for song in range(request.batch):
            latents[song].copy_(device.upload(noise(request.seed + song, request.latent_frames, channels), "noise"))
        times = schedule(steps_for(variant, request.steps), request.shift)
        scale = guidance_for(variant, request.guidance_scale)
        guidance = Guidance(scale) if scale > 1.0 else None
        with self.placement.use(TRANSFORMER):
            denoiser = Denoiser(self.components.transformer, self._kernels(), self.placement.use_block)
            for step, now in enumerate(times):
                velocity = denoiser.velocity(latents, context, condition, now)
                if guidance is not None:
                    velocity = guidance.combine(velocity, denoiser.velocity(latents, context, unguided, now))
                after = times[step + 1] if step + 1 < len(times) else 0.0
                latents.add_(velocity, alpha=after - now)
                del velocity
                progress("denoise", step + 1, len(times))
        return latents

    def _decode(self, request: Request, latents: Tensor, progress: Progress) -> Iterator[Song]:
        with self.placement.use("vae_decoder"):
            decoder = TileDecoder(self.components.vae.decoder)
            for song in range(request.batch):
                audio = decode_song(decoder, latents[song], request.samples, self.device, TILE_FRAMES)
                progress("decode", song + 1, request.batch)
                yield Song(seed=request.seed + song, audio=audio)

    def _kernels(self) -> Kernels:
        return Kernels(grouped=self.device.grouped_attention)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
