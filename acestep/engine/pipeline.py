"""The stages of a song in order: encode the words, denoise the latents, decode the audio.

No value is read back from the device: lengths, schedules and masks come from Python numbers, so the same code runs on a
card, on the CPU, and on meta tensors in the simulator.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
import torch

from acestep.checkpoints.components import Components
from acestep.checkpoints.quantize import quantize
from acestep.clip import Clip
from acestep.devices.base import Device
from acestep.devices.out_of_memory import free_unused, one_out_of_memory_error
from acestep.dit.compiled import uncompiled
from acestep.dit.place import StageContext
from acestep.dit.prompts import cut_warnings, lyric_prompt, text_prompt
from acestep.dit.sampler import too_many_steps
from acestep.dit.vae_decode import fold_weight_norm
from acestep.engine.decode import decode
from acestep.engine.denoise import denoise
from acestep.engine.encode import NO_AUDIO, encode
from acestep.engine.encode_audio import codes_of_clip, encode_audio
from acestep.engine.numbers import require_numbers
from acestep.engine.run import Run
from acestep.errors import NotEnoughMemoryError, first_line
from acestep.knobs import Knobs, Offload
from acestep.limits.guard import Demand, songs_at_once
from acestep.lm.stage import Thinker, UnableToThink
from acestep.memory.placement import Placement
from acestep.request import MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request, Task
from acestep.result import Result
from acestep.stage import Stage, StageReport
from acestep.units import Progress, ceil_div, mib, silent

_LOG = logging.getLogger(__name__)

RETRIES: Final = 3
"""How often a generation that ran out of memory is tried again, each time with less memory."""

SHORTER_SONGS: Final = (
    "Ask for shorter songs with --duration, use --quantization int8, or close other programs that use it."
)
SHORTER_CLIP: Final = "Bring a shorter recording, or close other programs that use it."
SMALLER_LM: Final = "Choose a smaller language model with --lm, or close other programs that use it."
"""The advice if even the smallest request does not fit."""

Made = TypeVar("Made")

NO_MEMORY_MODEL: Final[Mapping[str, float]] = MappingProxyType({})
"""The memory model of a table without one."""

UNABLE_TO_THINK: Final = UnableToThink()


def prepare(components: Components, knobs: Knobs) -> None:
    """Bring freshly loaded weights into the form in which they run: weight norm folded, linear layers quantised.

    In float16 the last projection of the lyric encoder stays in float32: its results reach 505,000, and float16 ends at
    65,504 (ACE-Step-1.5, pull request 1312).
    """
    fold_weight_norm(components.vae)
    if components.dtype is torch.float16:
        components.condition_encoder.lyric_encoder.layers[-1].mlp.down_proj.float()
    if knobs.quantization is not None:
        quantize(components.transformer, knobs.quantization)


class Pipeline:
    """Makes songs from requests, with prepared weights, placed on a device as the knobs say.

    `thinker` plans the songs of requests that ask for it, `memory_model` is the VRAM guard's model, `vae_chunk` a
    decode tile in latent frames (0: chosen from the free memory).
    """

    def __init__(
        self,
        components: Components,
        knobs: Knobs,
        device: Device,
        *,
        thinker: Thinker = UNABLE_TO_THINK,
        memory_model: Mapping[str, float] = NO_MEMORY_MODEL,
        vae_chunk: int = 0,
    ) -> None:
        self._thinker = thinker
        self._memory_model = memory_model
        placement = self._placement(components, knobs.offload, device)
        self._place = StageContext(
            components=components, knobs=knobs, device=device, placement=placement, vae_chunk=vae_chunk
        )

    @property
    def knobs(self) -> Knobs:
        """The knobs in force now: after running out of memory, more offload stays on."""
        return self._place.knobs

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights that are on the device between requests."""
        return self._place.placement.held_bytes

    def close(self) -> None:
        """Free everything on the device; the pipeline cannot be used afterwards."""
        self._thinker.close()
        self._place.placement.release()

    @torch.no_grad()
    def generate(self, request: Request, *, strict: bool = False, progress: Progress = silent) -> Result:
        """Make the songs of a request; song k is the same for any number of songs per pass.

        After running out of memory, it tries again with fewer songs per pass and then with more offload, which later
        calls keep. `strict` is for probes: one pass, no retry, and the out-of-memory error is raised unchanged. Raises
        `NotEnoughMemoryError` if no retry helps.
        """
        run = Run(request, strict=strict)
        if strict:
            return self._run(run, progress)
        run.warnings.extend(cut_warnings(request, self._place.components.tokenizer))
        run.warnings.extend(too_many_steps(self._place.components.variant, request.steps))
        return self._with_less(run, lambda: self._run(run, progress), SHORTER_SONGS, counts_songs=True)

    @torch.no_grad()
    def codes(self, clip: Clip, progress: Progress = silent) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the audio codes of a clip, five for each second, as a cover of it follows them.

        And the warnings of the run. After running out of memory, it tries again with more offload. Raises
        `NotEnoughMemoryError` if no retry helps, and `InvalidInputError` for a checkpoint without audio tokenizer.
        """
        run = Run(Request(caption="", task=Task.COVER, source_audio=clip), strict=False)
        return self._with_less(run, lambda: self._codes(clip, run, progress), SHORTER_CLIP), tuple(run.warnings)

    @torch.no_grad()
    def plan(self, request: Request, progress: Progress = silent) -> tuple[Request, tuple[str, ...]]:
        """Return a request with what the language model plans filled in, without audio codes, and the warnings.

        After running out of memory, it tries again with more offload. Raises `NotEnoughMemoryError` if no retry helps.
        """
        words_only = msgspec.structs.replace(request.thinking, codes=False)
        run = Run(msgspec.structs.replace(request, thinking=words_only), strict=False)
        return self._with_less(run, lambda: self._plan(run, progress), SMALLER_LM), tuple(run.warnings)

    def _with_less(self, run: Run, attempt: Callable[[], Made], remedy: str, *, counts_songs: bool = False) -> Made:
        """Return the result of an attempt; when it runs out of memory, try again with less on the card at once."""
        problem = ""
        for retry in range(RETRIES + 1):
            if retry and not self._use_less(run):
                break
            try:
                return attempt()
            except torch.OutOfMemoryError as error:
                problem = first_line(error)
            free_unused(self._place.device)
        tried = [f"{_songs(run.songs_per_pass)} at once"] if counts_songs else []
        if not self._place.device.shares_host_memory:
            tried.append(f"offload {self._place.knobs.offload}")
        least = f", with {' and '.join(tried)} too" if tried else ""
        raise NotEnoughMemoryError(f"{_ran_out(self._place.device)} ({problem}){least}. {remedy}")

    @one_out_of_memory_error()
    def _codes(self, clip: Clip, run: Run, progress: Progress) -> tuple[int, ...]:
        run.stage = None
        self._place.placement.settle()
        with self._stage(Stage.ENCODE_AUDIO, 1, run, progress):
            found = codes_of_clip(clip, self._place, lambda: progress(Stage.ENCODE_AUDIO, 0, 1))
            progress(Stage.ENCODE_AUDIO, 1, 1)
        return found

    @one_out_of_memory_error()
    def _run(self, run: Run, progress: Progress) -> Result:
        request, place = run.request, self._place
        run.stage = None
        place.placement.settle()
        if request.thinks:
            self._think(run, progress)
            request = run.request
        if run.guarded:
            self._guard(run)
        brought = NO_AUDIO
        if request.has_audio:
            with self._stage(Stage.ENCODE_AUDIO, 1, run, progress):
                brought = encode_audio(request, place, run.codes, lambda: progress(Stage.ENCODE_AUDIO, 0, 1))
                progress(Stage.ENCODE_AUDIO, 1, 1)
        with self._stage(Stage.ENCODE, 1, run, progress):
            conditions = encode(request, place, brought)
            progress(Stage.ENCODE, 1, 1)
        del brought
        if run.latents is None:
            run.latents = torch.zeros(request.batch, request.latent_frames, conditions.context.shape[-1] // 2)
        while run.done < request.batch:
            after = min(request.batch, run.done + run.songs_per_pass)
            songs = msgspec.structs.replace(request, batch=after - run.done, seed=request.seed + run.done)
            watched = progress if run.strict else run.pace.watching(progress, place.device)
            with self._stage(Stage.DENOISE, songs.batch, run, progress):
                latents = denoise(songs, conditions.of(run.done, after), place, watched)
                place.device.download(run.latents[run.done : after].numpy(), latents)
                del latents
            run.done = after
        require_numbers(run.latents, place.components.dtype)
        del conditions
        run.warnings.extend(run.pace.told())
        if place.knobs.compile and (problem := uncompiled()):
            run.tell_uncompiled(problem)
        with self._stage(Stage.DECODE, 1, run, progress):
            decoded = decode(request, run.latents, place, progress)
        return Result(
            request=request,
            songs=decoded.songs,
            stages=tuple(run.stages.values()),
            songs_per_pass=run.stages[Stage.DENOISE].songs_per_pass,
            decode_path=decoded.path,
            warnings=(*run.warnings, *decoded.warnings),
        )

    @one_out_of_memory_error()
    def _plan(self, run: Run, progress: Progress) -> Request:
        run.stage = None
        self._place.placement.settle()
        self._think(run, progress)
        return run.request

    def _think(self, run: Run, progress: Progress) -> None:
        """Plan the songs, once: retries keep the plan."""
        with self._stage(Stage.THINK, run.request.batch, run, progress):
            thought = self._thinker.think(run.request, self._place, progress)
        run.request, run.codes = thought.request, thought.codes
        if run.guarded:
            run.warnings.extend(thought.warnings)
        run.stages[Stage.THINK] = msgspec.structs.replace(
            run.stages[Stage.THINK], songs_per_pass=thought.songs_per_pass
        )

    def _guard(self, run: Run) -> None:
        """Set the number of songs per pass that the guard predicts to fit in free memory.

        Warn if it is not all of them.
        """
        request, place = run.request, self._place
        run.guarded = False
        if request.batch == 1 or place.device.shares_host_memory or not self._memory_model:
            return
        place.placement.settle()
        place.device.empty_cache()
        encode_text = place.components.tokenizer.encode
        demand = Demand(
            songs=request.batch,
            frames=request.latent_frames,
            lyric_tokens=len(encode_text(lyric_prompt(request), MAX_LYRIC_TOKENS)),
            text_tokens=len(encode_text(text_prompt(request), MAX_TEXT_TOKENS)),
            with_audio=request.has_audio or run.codes is not None,
            weak_cover=request.cover_strength < 1,
            recorded=request.starts_from_source,
            contexts=1 if run.codes is None else len(run.codes),
            grouped_attention=place.device.grouped_attention,
            matrix_workspace=place.device.matrix_workspace,
            itemsize=place.components.dtype.itemsize,
            adapters=place.components.adapter_memory,
        )
        fitting = songs_at_once(self._memory_model, place.knobs, demand, place.device.free_bytes())
        if fitting < request.batch:
            run.songs_per_pass = fitting
            run.warnings.append(
                f"{_songs(request.batch)} at once need more memory than is free on the card, so {_songs(fitting)} at a"
                " time are made. The songs stay the same."
            )

    def _use_less(self, run: Run) -> bool:
        """Switch to the next fallback and warn; return False if there is none left."""
        if run.stage is Stage.DENOISE and run.songs_per_pass > 1:
            fewer = ceil_div(run.songs_per_pass, 3)
            run.warnings.append(
                f"{_ran_out(self._place.device)} with {_songs(run.songs_per_pass)} at once; {_songs(fewer)} at a time"
                " are tried. The songs stay the same."
            )
            run.songs_per_pass = fewer
            return True
        place = self._place
        frugal = list(Offload)[list(Offload).index(place.knobs.offload) + 1 :]
        if place.device.shares_host_memory or not frugal:
            return False
        run.warnings.append(
            f"The card ran out of memory with offload {place.knobs.offload}; {frugal[0]} is used from now on, which"
            " keeps less on the card and takes longer."
        )
        place.placement.release()
        self._place = msgspec.structs.replace(
            place,
            knobs=msgspec.structs.replace(place.knobs, offload=frugal[0]),
            placement=self._placement(place.components, frugal[0], place.device),
        )
        return True

    def _placement(self, components: Components, offload: Offload, device: Device) -> Placement:
        parts = {**components.modules(), **self._thinker.modules()}
        return Placement(parts, components.blocks(), offload, device)

    @contextmanager
    def _stage(self, name: Stage, songs_per_pass: int, run: Run, progress: Progress) -> Iterator[None]:
        run.stage = name
        progress(name, 0, 1)
        _LOG.debug("%s begins", name)
        device = self._place.device
        device.synchronize()
        device.empty_cache()
        device.begin_stage(name)
        started = time.perf_counter()
        try:
            yield
            device.synchronize()
        finally:
            seconds = time.perf_counter() - started
            allocated, reserved = device.end_stage()
            _LOG.info("%s: %.2f s, %s at once, peak %s", name, seconds, _songs(songs_per_pass), mib(allocated))
        run.report(
            StageReport(
                name=name,
                seconds=seconds,
                songs_per_pass=songs_per_pass,
                peak_allocated_bytes=allocated,
                peak_reserved_bytes=reserved,
            )
        )


def _ran_out(device: Device) -> str:
    return f"The {'computer' if device.shares_host_memory else 'card'} ran out of memory"


def _songs(count: int) -> str:
    return "1 song" if count == 1 else f"{count} songs"
