"""The profiler's flags as a model and a request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from acestep.audio.read import read_clip
from acestep.cli.task_options import codes_of, text_of
from acestep.errors import UsageError
from acestep.knobs import Offload
from acestep.limits.plan import overrides_from
from acestep.request import Request, Task, asked_request
from acestep.thinking import Sampling, Think, Thinking
from acestep.typed import values_of_user
from calibrate.profiling.example import load_example
from calibrate.profiling.session import Wish

DEFAULT_EXAMPLE = "night_shift"
"""The request if no example is named: a song of common length, with lyrics and every field filled in."""


def wish_of(flags: Mapping[str, Any]) -> Wish:
    """Return what to load."""
    knobs = {
        "lm": flags["lm_model"],
        "backend": flags["lm_backend"],
        "offload": _offload(flags["offload_to_cpu"], flags["offload_dit_to_cpu"]),
        "quantization": flags["quantization"],
    }
    if not flags["config_path"].strip():
        raise UsageError("--config-path is empty; give it a value or leave it out")
    return Wish(
        model=flags["config_path"],
        device=flags["device"],
        overrides=overrides_from(knobs),
    )


def think_of(flags: Mapping[str, Any]) -> Think:
    """Return whether songs are to be planned."""
    return {None: Think.AS_PLANNED, True: Think.YES, False: Think.NO}[flags["thinking"]]


def profile_request(flags: Mapping[str, Any]) -> Request:
    """Return the request of `--mode profile`: that of the example, changed by the flags."""
    audio = _audio(flags)
    follows = bool(audio.keys() & {"source_audio", "audio_codes"})
    asked = {
        # As with `acestep generate`: codes without a task mean a cover.
        "task": flags["task_type"] or (Task.COVER if "audio_codes" in audio else Task.TEXT2MUSIC),
        "duration_s": one(flags, "duration", "--duration", 0.0 if follows else None),
        "batch": one(flags, "batch_size", "--batch-size"),
        "steps": one(flags, "inference_steps", "--inference-steps"),
        "track": flags["track"] or None,
    }
    return asked_request({**audio, **asked, "task": Task(asked["task"])}, song_of(flags))


def song_of(flags: Mapping[str, Any]) -> Request:
    """The example's request with the seed, guidance and thinking of the flags."""
    return asked_request(
        {
            "seed": flags["seed"],
            "guidance_scale": flags["guidance_scale"],
            "think": think_of(flags) is not Think.NO,
            "thinking": _thinking(flags),
        },
        load_example(DEFAULT_EXAMPLE if flags["example"] is None else flags["example"]),
    )


def one(flags: Mapping[str, Any], name: str, flag: str, absent: float | None = None) -> Any:
    """Return the only value of a flag that may have several in mode benchmark; `absent` if it was not given."""
    values = flags[name]
    if len(values) > 1:
        raise UsageError(f"{flag} takes one value in mode profile, got {len(values)}; mode benchmark takes several")
    return values[0] if values else absent


def _audio(flags: Mapping[str, Any]) -> dict[str, Any]:
    source, reference, codes = flags["src_audio"], flags["reference_audio"], flags["audio_codes"]
    files: dict[str, Path | None] = {"source_audio": source, "reference_audio": reference}
    found: dict[str, Any] = {field: read_clip(path) for field, path in files.items() if path is not None}
    return {**found, "audio_codes": codes_of(text_of(codes))} if codes else found


def _offload(everything: bool | None, transformer: bool | None) -> Offload | UnsetType:
    """Return the offload mode of the two published flags; without either, the tier's."""
    if transformer and not everything:
        raise UsageError("--offload-dit-to-cpu goes with --offload-to-cpu: the transformer never leaves alone")
    if everything is None:
        if transformer is False:
            raise UsageError("--no-offload-dit-to-cpu goes with --offload-to-cpu or --no-offload-to-cpu")
        return UNSET
    if not everything:
        return Offload.NONE
    return Offload.CPU_DIT if transformer else Offload.CPU


def _thinking(flags: Mapping[str, Any]) -> Thinking:
    with values_of_user():
        return Thinking(
            metas=flags["use_cot_metas"],
            caption=flags["use_cot_caption"],
            language=flags["use_cot_language"],
            sampling=sampling_of(flags, Sampling()),
        )


def sampling_of(flags: Mapping[str, Any], usual: Sampling) -> Sampling:
    """Return the sampling of the language model: the default, changed by the flags.

    Raises `ValueError` for a value out of range.
    """
    asked = {"temperature": flags["lm_temperature"], "guidance": flags["lm_cfg_scale"]}
    return msgspec.structs.replace(usual, **{name: value for name, value in asked.items() if value is not None})
