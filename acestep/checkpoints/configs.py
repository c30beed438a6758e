"""The configurations in a checkpoint's folder, decoded strictly; no weights are read."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from acestep.checkpoints.architecture import Architecture, QwenArchitecture, VaeArchitecture
from acestep.checkpoints.convert import OPTIONAL_PARTS, PREFIXES, original_config, part_configs
from acestep.errors import InvalidInputError
from acestep.regular_file import content_of, is_file
from acestep.request import LATENT_HOP, SAMPLE_RATE
from acestep.units import MIB

A = TypeVar("A", Architecture, VaeArchitecture, QwenArchitecture)

_SHOWN = 80
"""Characters of a wrong value that an error message shows."""

MODEL_INDEX = "model_index.json"
"""The file at the top of every checkpoint in the diffusers layout."""

MAX_JSON_BYTES = 64 * MIB
"""Largest configuration, index or tokenizer that is read; the real ones are far smaller."""

_DTYPES = ("float32", "bfloat16", "float16", "torch.float32", "torch.bfloat16", "torch.float16", "auto")
_KERNELS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_QWEN_ALONE: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "use_sliding_window": (False,),
    "dtype": _DTYPES,
    "torch_dtype": _DTYPES,
    "_attn_implementation": _KERNELS,
    "attn_implementation": _KERNELS,
}
"""Fields that would change what a Qwen3 computes, or name code, and the values that leave it as it is built here."""

_QWEN_WIDTHS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
)
"""The fields that a configuration of a Qwen3 must have; published models differ in them."""


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; raises `InvalidInputError` where there is none."""
    try:
        content = content_of(path, MAX_JSON_BYTES, "a model's configuration")
        return msgspec.json.decode(content, type=dict[str, Any])
    except OSError as error:
        raise InvalidInputError(path, f"cannot be read ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(path, f"is not a JSON object ({error})") from error


def has_parts(folder: Path) -> bool:
    """Whether the checkpoint in `folder` has a folder for each part (diffusers layout) rather than one file."""
    return is_file(folder / MODEL_INDEX)


def parts_in(folder: Path) -> tuple[str, ...]:
    """Which of the diffusers models of an original file a checkpoint in the diffusers layout holds."""
    index = read_config(folder / MODEL_INDEX)
    absent = [part for part in OPTIONAL_PARTS if index.get(part) in (None, [None, None])]
    return tuple(part for part in PREFIXES if part not in absent)


def architecture_in(folder: Path) -> Architecture:
    """Return the architecture of the DiT checkpoint in `folder`, of either layout."""
    if not has_parts(folder):
        config = read_config(folder / "config.json")
        rope = config.get("rope_parameters")  # where newer transformers releases write rope_theta
        return _decode(rope | config if isinstance(rope, dict) else config, Architecture, folder / "config.json")
    configs = {part: read_config(folder / part / "config.json") for part in parts_in(folder)}
    architecture = _decode(original_config(configs), Architecture, folder / "transformer" / "config.json")
    _check_agreement(configs, architecture, folder)
    return architecture


def vae_architecture_in(folder: Path, architecture: Architecture) -> VaeArchitecture:
    """Return the architecture of the VAE in `folder`; raise `InvalidInputError` if it does not fit the transformer."""
    source = folder / "config.json"
    config = read_config(source)
    if missing := [name for name in VaeArchitecture.__struct_fields__ if config.get(name) is None]:
        raise InvalidInputError(source, f"lacks {', '.join(missing)}")
    vae = _decode(config, VaeArchitecture, source)
    hop = math.prod(vae.downsampling_ratios)
    if (hop, vae.sampling_rate) != (LATENT_HOP, SAMPLE_RATE):
        raise InvalidInputError(
            source, f"{hop} samples a frame at {vae.sampling_rate} Hz; expected {LATENT_HOP} at {SAMPLE_RATE} Hz"
        )
    if vae.decoder_input_channels != architecture.audio_acoustic_hidden_dim:
        raise InvalidInputError(
            source,
            f"decoder_input_channels is {vae.decoder_input_channels}; "
            f"the transformer makes {architecture.audio_acoustic_hidden_dim} channels",
        )
    return vae


def qwen_architecture_in(folder: Path) -> QwenArchitecture:
    """Return the architecture of the text encoder or language model in `folder`; fields that shape nothing are ignored.

    Raises `InvalidInputError` for a missing configuration and for one of another model.
    """
    source = folder / "config.json"
    config = read_config(source)
    if config.get("model_type") != "qwen3":
        raise InvalidInputError(source, f"model_type is {shortened(config.get('model_type'))}; expected 'qwen3'")
    if missing := [name for name in _QWEN_WIDTHS if config.get(name) is None]:
        raise InvalidInputError(source, f"is no Qwen3 configuration: it lacks {', '.join(missing)}")
    for name, values in _QWEN_ALONE.items():
        if (got := config.get(name)) is not None and got not in values:
            raise InvalidInputError(source, f"{name} is {shortened(got)}; expected {' or '.join(map(repr, values))}")
    kinds = config.get("layer_types") or []
    others = [kind for kind in kinds if kind != "full_attention"] if isinstance(kinds, list) else [kinds]
    if others:
        raise InvalidInputError(source, f"has layers of {str(others[0])[:_SHOWN]}; expected full_attention alone")
    theta: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        rope = config.get(name) or {}
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
        if kind not in (None, "default"):
            raise InvalidInputError(source, f"{name} is {shortened(rope)}; expected the default kind or null")
        theta |= {key: value for key, value in rope.items() if key == "rope_theta"}
    try:
        return _decode(theta | config, QwenArchitecture, source)
    except InvalidInputError as error:
        raise InvalidInputError(source, f"is no Qwen3 configuration ({error.problem})") from error


def shortened(value: Any) -> str:
    """Return the beginning of a wrong value, for an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def some(names: Sequence[str]) -> str:
    """Return the first of some names, for an error message."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _decode(config: Mapping[str, Any], kind: type[A], source: Path) -> A:
    """The fields of `kind` in `config`; null means the default."""
    try:
        return msgspec.convert({k: v for k, v in config.items() if v is not None}, kind)
    except msgspec.ValidationError as error:
        raise InvalidInputError(source, str(error)) from error


def _check_agreement(configs: Mapping[str, Mapping[str, Any]], architecture: Architecture, folder: Path) -> None:
    """Require that the parts' configurations describe one model, so that none is silently read differently."""
    for part, expected in part_configs(architecture).items():
        for name, value in expected.items():
            got = configs.get(part, {}).get(name)
            if got is not None and got != value:
                raise InvalidInputError(
                    folder / part / "config.json",
                    f"{name} is {shortened(got)}; the other parts need {shortened(value)}",
                )
