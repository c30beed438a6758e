"""Songs end to end, as the command line and Python callers ask for them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from acestep import audio
from acestep.devices.open import open_device
from acestep.hardware import cap_bytes, detect
from acestep.knobs import Variant
from acestep.machine import installed, plan_here
from acestep.memory.vae_decode import chunk_from
from acestep.models.build import SIZES
from acestep.models.catalog import checkpoints_dir
from acestep.models.load import load
from acestep.models.locate import variant_at
from acestep.pipeline import Pipeline, prepare
from acestep.plan import Overrides, Plan, clamp, on_device
from acestep.progress import Progress, silent
from acestep.request import BASE_TASKS, Request, Result, Song
from acestep.tiers import load_tiers

Notify = Callable[[str], None]


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
) -> dict[str, Any]:
    """Make the songs of a request, write them to `out`, and return the document that `--json` prints."""
    audio.open_folder(out)
    if model not in SIZES:
        overrides = msgspec.structs.replace(overrides, variant=variant_at(model, checkpoints_dir()))
    result, plan = _generate(request, plan_here(overrides), model, notify, progress)
    return {
        "songs": [_write(song, request.caption, out, audio_format) for song in result.songs],
        "plan": msgspec.to_builtins(plan),
        "warnings": list(result.warnings),
        "songs_per_pass": result.songs_per_pass,
        "decode_path": result.decode_path.value,
        "stages": msgspec.to_builtins(result.stages),
    }


def _generate(request: Request, plan: Plan, model: str, notify: Notify, progress: Progress) -> tuple[Result, Plan]:
    """The songs, and the plan as the device of this run carried it out."""
    vae_chunk = chunk_from(os.environ)
    detected = detect(os.environ)
    device, card = open_device(detected, cap_bytes(os.environ, detected))
    plan = on_device(plan, card, torchao_available=installed("torchao"), flash_attn_available=installed("flash_attn"))
    clamped, cuts = clamp(request, plan, lm=False)
    components = load(model, plan.variant, dtype=device.dtype)
    warnings = [*plan.warnings, *cuts]
    if request.task in BASE_TASKS and plan.variant not in (Variant.BASE, Variant.XL_BASE):
        warnings.append(f"Only the base models were trained to {request.task}; {plan.variant} may ignore the task.")
    if components.is_noise:
        warnings.append(f"The {components.is_noise} model has random weights: the songs are noise, not music.")
    for sentence in warnings:
        notify(sentence)
    prepare(components, plan.knobs)
    table = None if components.is_noise == "tiny" else load_tiers().variants.get(plan.variant)
    pipeline = Pipeline(
        components,
        plan.knobs,
        device,
        memory_model={} if table is None else table.memory_model,
        vae_chunk=vae_chunk,
    )
    try:
        result = pipeline.generate(clamped, progress=progress)
    finally:
        pipeline.close()
    for sentence in result.warnings:
        notify(sentence)
    return msgspec.structs.replace(result, warnings=(*warnings, *result.warnings)), plan


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


def _ignore(sentence: str) -> None:
    """Warnings also travel in the result."""
