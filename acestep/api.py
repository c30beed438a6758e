"""Songs end to end, for the command line and for Python callers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from acestep.adapters.choice import Adapter, adapters_from
from acestep.adapters.memory import memory_apart
from acestep.audio import write as audio
from acestep.checkpoints.catalog import is_named
from acestep.checkpoints.tokenizer import encodable
from acestep.clip import Clip
from acestep.devices.open import plan_to_run
from acestep.devices.out_of_memory import ran_out
from acestep.engine.service import Notify, Service, ignore
from acestep.engine.worth_compiling import compiled_where_it_pays
from acestep.errors import NotEnoughMemoryError
from acestep.knobs import Variant
from acestep.limits.of_model import of_model
from acestep.limits.own_runs import keep_own_run
from acestep.limits.plan import AS_THE_TIER_SAYS, Overrides, Plan
from acestep.lm import songwriting
from acestep.lm.jobs import Description
from acestep.request import Request, Song
from acestep.result import Result
from acestep.song_settings import settings_text
from acestep.thinking import Think
from acestep.units import Progress, silent

ASK_FOR_LESS = "Close other programs, choose a smaller model with --model, or ask for something shorter."
"""The advice if memory runs out before or between the stages."""

METADATA = ("caption", "duration_s", "bpm", "keyscale", "timesignature", "language")
"""Fields of a request that a language model may fill in."""


def generate(
    request: Request,
    plan: Plan | None = None,
    *,
    lora: Iterable[str | PathLike[str] | Adapter] = (),
    lora_unfused: bool = False,
) -> Result:
    """Return the songs of a request under `plan`, or under this machine's own plan; audio is not yet normalised.

    `lora` are adapters to use, such as ``["folk.safetensors:0.8"]``. They become part of the weights, or with
    `lora_unfused` stay apart from them.
    """
    adapters = adapters_from(lora, unfused=lora_unfused)
    plan = plan or plan_to_run(request=request, adapters=memory_apart(adapters))
    with _serving(plan.variant.value) as service:
        return service.generate(request, plan, adapters=adapters)[0]


class LoadedModel:
    """A model that stays loaded from one request to the next; songs are made one request at a time."""

    def __init__(self, model: str, service: Service) -> None:
        self._overrides = of_model(model, AS_THE_TIER_SAYS)
        self._service = service

    def generate(
        self,
        request: Request,
        plan: Plan | None = None,
        *,
        lora: Iterable[str | PathLike[str] | Adapter] = (),
        lora_unfused: bool = False,
    ) -> Result:
        """Return the songs of a request, as `generate` does.

        Other adapters, or other scales, load the model again, unless they are `lora_unfused`.
        """
        adapters = adapters_from(lora, unfused=lora_unfused)
        plan = plan or plan_to_run(self._overrides, request, memory_apart(adapters))
        with memory_told():
            return self._service.generate(request, plan, adapters=adapters)[0]


@contextmanager
def open_model(model: str = Variant.TURBO) -> Iterator[LoadedModel]:
    """Keep a model loaded inside the block: its name, a folder with its weights, or `tiny`."""
    with closing(Service(model)) as service:
        yield LoadedModel(model, service)


def audio_codes(
    clip: Clip,
    plan: Plan | None = None,
    *,
    model: str | None = None,
    notify: Notify = ignore,
    progress: Progress = silent,
) -> tuple[int, ...]:
    """Return the audio codes of a clip, five for each second, which a cover of it follows.

    Runs under `plan` or this machine's own plan. `model` is the model with the audio tokenizer; by default that of the
    plan's variant. Raises `UsageError` for a clip that no cover can follow, `InvalidInputError` when the weights are
    missing and `RunFailedError` when every retry runs out of memory.
    """
    clip.require_song_length()
    plan = plan or plan_to_run()
    with _serving(model or plan.variant.value) as service:
        return service.codes(clip, plan, notify=notify, progress=progress)


def understand(
    song: tuple[int, ...] | Clip,
    plan: Plan | None = None,
    *,
    model: str = songwriting.RELEASED,
    seed: int = 0,
    progress: Progress = silent,
) -> Description:
    """Describe in words the song of audio codes or of a clip; without codes, invent one.

    Raises as `audio_codes` and `acestep.lm.songwriting.understand_song` do.
    """
    plan, told = plan or plan_to_run(), list[str]()
    if isinstance(song, Clip):
        song = audio_codes(song, plan, model=model, notify=told.append, progress=progress)
    found = songwriting.understand_song(song, plan, model=model, seed=seed, progress=progress)
    return msgspec.structs.replace(found, warnings=tuple(dict.fromkeys((*told, *found.warnings))))


def run_generate(
    request: Request,
    *,
    model: str,
    overrides: Overrides,
    out: Path,
    audio_format: str,
    notify: Notify,
    progress: Progress,
    think: Think = Think.AS_PLANNED,
    adapters: Sequence[Adapter] = (),
    mp3_bitrate: int | None = None,
) -> dict[str, Any]:
    """Make the songs of a request, write them to `out`, and return the document that `--json` prints."""
    audio.open_folder(out)
    audio.require_writable(audio_format)
    overrides = of_model(model, overrides)
    apart = memory_apart(adapters)
    request, plan = settle_think(request, think, lambda request: plan_to_run(overrides, request, apart))
    if request.thinking.planned_caption and not request.thinks:
        notify("The planned caption is not used, because no language model plans the songs.")
    plan = compiled_where_it_pays(plan, overrides, request)
    with _serving(model) as service:
        result, plan = service.generate(
            request, plan, notify=notify, progress=progress, unasked=think is Think.AS_PLANNED, adapters=adapters
        )
    document = write_songs(result, request, model, plan, out, audio_format, mp3_bitrate)
    keep_times(model, plan, request, result)
    return document


def settle_think(request: Request, think: Think, plan_of: Callable[[Request], Plan]) -> tuple[Request, Plan]:
    """Return the request with the decision whether a language model plans its songs, and its plan by `plan_of`."""
    plan = plan_of(request)
    thinks = plan.init_lm if think is Think.AS_PLANNED else think is Think.YES
    if thinks is request.think:
        return request, plan
    # Without planning, more of the card is left for the songs.
    request = msgspec.structs.replace(request, think=thinks)
    return request, plan_of(request)


def keep_times(model: str, plan: Plan, request: Request, result: Result) -> None:
    """Keep how long a run took, unless its model has toy weights: it corrects the estimates for later songs."""
    if model != "tiny":
        keep_own_run(plan, request, result)


@contextmanager
def _serving(model: str) -> Iterator[Service]:
    """A service for one run; memory that runs out is told as `memory_told` says."""
    with closing(Service(model)) as service, memory_told():
        yield service


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise memory that runs out inside the block, where no stage is tried again, as `NotEnoughMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or ran_out(error)):
            raise
        problem = str(error).partition("\n")[0] or "no memory is left"
        raise NotEnoughMemoryError(f"Memory ran out ({problem}). {ASK_FOR_LESS}") from None


def write_songs(
    result: Result,
    request: Request,
    model: str,
    plan: Plan,
    out: Path,
    audio_format: str,
    mp3_bitrate: int | None = None,
) -> dict[str, Any]:
    """Write songs to `out`, named after their caption, and return the document about them.

    Each file carries the `request` that it was asked with. `mp3_bitrate` is in kbit/s; None means a variable bitrate.
    """
    known = model if is_named(model) else None
    return {
        "songs": [
            _write(
                song,
                request,
                settings_text(request, result, song.seed, known, plan.knobs),
                out,
                audio_format,
                mp3_bitrate,
            )
            for song in result.songs
        ],
        "metadata": {name: _plain(getattr(result.request, name)) for name in METADATA},
        "adapters": msgspec.to_builtins(result.adapters),
        "plan": msgspec.to_builtins(plan),
        "warnings": list(result.warnings),
        "songs_per_pass": result.songs_per_pass,
        "decode_path": result.decode_path.value,
        "stages": msgspec.to_builtins(result.stages),
    }


def _write(
    song: Song, request: Request, settings: str, out: Path, audio_format: str, mp3_bitrate: int | None
) -> dict[str, Any]:
    caption = encodable(request.caption)
    samples = audio.normalise(song.audio, keeps_level=song.keeps_level)
    path = audio.write_song(
        out,
        audio.stem(request.caption, song.seed),
        audio_format,
        samples,
        song.sample_rate,
        title=caption,
        comment=settings,
        mp3_bitrate=mp3_bitrate,
    )
    return {
        "path": str(path),
        "seed": song.seed,
        "duration_s": samples.shape[1] / song.sample_rate,
        "sample_rate": song.sample_rate,
        "peak_dbfs": round(audio.peak_dbfs(samples), 3),
    }


def _plain(value: str | float) -> str | float:
    """Return a value that JSON can hold: a terminal passes bytes that are not valid text as lone surrogates."""
    return encodable(value) if isinstance(value, str) else value
