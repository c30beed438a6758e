"""Songs end to end, as the command line and Python callers ask for them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from acestep import audio
from acestep.devices.base import Device
from acestep.devices.open import open_device
from acestep.errors import InvalidInputError, UsageError
from acestep.hardware import cap_bytes, detect
from acestep.knobs import Variant
from acestep.machine import installed, plan_here
from acestep.memory.vae_decode import chunk_from
from acestep.models.build import SIZES
from acestep.models.catalog import checkpoints_dir
from acestep.models.components import Components
from acestep.models.load import load
from acestep.models.locate import variant_at
from acestep.models.tokenizer import encodable
from acestep.pipeline import UNABLE_TO_THINK, Pipeline, prepare
from acestep.plan import Overrides, Plan, clamp, on_device
from acestep.planner.planner import check_wishes
from acestep.progress import Progress, silent
from acestep.request import BASE_TASKS, Request, Result, Song
from acestep.songwriting import open_language, without_language
from acestep.stages.think import Thinker
from acestep.thinking import Think
from acestep.tiers import load_tiers

Notify = Callable[[str], None]

METADATA = ("caption", "duration_s", "bpm", "keyscale", "timesignature", "language")
"""Fields of a request that a language model may fill in."""


def generate(request: Request, plan: Plan | None = None) -> Result:
    """The songs of a request under `plan`, or under this machine's own; audio is not yet normalised."""
    plan = plan or plan_here()
    result, _ = _generate(request, plan, plan.variant.value, _ignore, silent)
    return result


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
) -> dict[str, Any]:
    """Make the songs of a request, write them to `out`, and return the document that `--json` prints."""
    audio.open_folder(out)
    if model not in SIZES:
        overrides = msgspec.structs.replace(overrides, variant=variant_at(model, checkpoints_dir()))
    plan = plan_here(overrides)
    thinks = plan.init_lm if think is Think.AS_PLANNED else think is Think.YES
    request = msgspec.structs.replace(request, think=thinks)
    result, plan = _generate(request, plan, model, notify, progress, unasked=think is Think.AS_PLANNED)
    return {
        "songs": [_write(song, request.caption, out, audio_format) for song in result.songs],
        "metadata": {name: _plain(getattr(result.request, name)) for name in METADATA},
        "plan": msgspec.to_builtins(plan),
        "warnings": list(result.warnings),
        "songs_per_pass": result.songs_per_pass,
        "decode_path": result.decode_path.value,
        "stages": msgspec.to_builtins(result.stages),
    }


def _generate(
    request: Request, plan: Plan, model: str, notify: Notify, progress: Progress, *, unasked: bool = False
) -> tuple[Result, Plan]:
    """The songs, and the plan as the device of this run carried it out; `unasked` thinking is left out where it can't.

    Every warning is also given to `notify` as it comes up.
    """
    warnings: list[str] = []

    def warn(sentence: str) -> None:
        warnings.append(sentence)
        notify(sentence)

    vae_chunk = chunk_from(os.environ)
    detected = detect(os.environ)
    device, card = open_device(detected, cap_bytes(os.environ, detected))
    plan = on_device(plan, card, torchao_available=installed("torchao"), flash_attn_available=installed("flash_attn"))
    for sentence in plan.warnings:
        warn(sentence)
    request, thinker = _thinking(request, plan, model, device, warn, unasked=unasked)
    clamped, cuts = clamp(request, plan, lm=request.thinks)
    components = load(model, plan.variant, dtype=device.dtype)
    for sentence in (*cuts, *_remarks(request, plan, components)):
        warn(sentence)
    prepare(components, plan.knobs)
    table = None if components.is_noise == "tiny" else load_tiers().variants.get(plan.variant)
    pipeline = Pipeline(
        components,
        plan.knobs,
        device,
        thinker=thinker,
        memory_model={} if table is None else table.memory_model,
        vae_chunk=vae_chunk,
    )
    try:
        result = pipeline.generate(clamped, progress=progress)
    finally:
        pipeline.close()
    for sentence in result.warnings:
        warn(sentence)
    return msgspec.structs.replace(result, warnings=tuple(warnings)), plan


def _thinking(
    request: Request, plan: Plan, model: str, device: Device, warn: Notify, *, unasked: bool
) -> tuple[Request, Thinker]:
    """What plans the songs of a request, and the request without thinking where nothing can."""
    without = msgspec.structs.replace(request, think=False)
    if request.think and not request.thinks and not unasked:
        warn(f"A song is planned before it is made; to {request.task} is to work on one that exists, without planning.")
    if not request.thinks:
        return without, UNABLE_TO_THINK
    if plan.lm is None:
        if not unasked:
            warn(f"The song is made without planning: {without_language(plan)}.")
        return without, UNABLE_TO_THINK
    try:
        check_wishes(request)
        return request, open_language(plan, model, device, warn).thinker()
    except (InvalidInputError, UsageError) as error:
        if not unasked:
            raise
        problem = str(error)
    warn(f"The song is made without planning: {problem}.")
    return without, UNABLE_TO_THINK


def _remarks(request: Request, plan: Plan, components: Components) -> list[str]:
    """What a person should know about the model that was loaded."""
    remarks = []
    if request.task in BASE_TASKS and plan.variant not in (Variant.BASE, Variant.XL_BASE):
        remarks.append(f"Only the base models were trained to {request.task}; {plan.variant} may ignore the task.")
    if components.is_noise:
        remarks.append(f"The {components.is_noise} model has random weights: the songs are noise, not music.")
    return remarks


def _write(song: Song, caption: str, out: Path, audio_format: str) -> dict[str, Any]:
    samples = audio.normalise(song.audio)
    path = audio.free_path(out, audio.stem(caption, song.seed), audio_format)
    audio.write(path, samples, song.sample_rate)
    return {
        "path": str(path),
        "seed": song.seed,
        "duration_s": samples.shape[1] / song.sample_rate,
        "sample_rate": song.sample_rate,
        "peak_dbfs": round(audio.peak_dbfs(samples), 3),
    }


def _plain(value: str | float) -> str | float:
    """What JSON can hold: a terminal hands over bytes that are no text as lone surrogates."""
    return encodable(value) if isinstance(value, str) else value


def _ignore(sentence: str) -> None:
    """Warnings also travel in the result."""
