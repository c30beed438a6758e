"""Converts between the original checkpoint layout and the diffusers one: configurations and key names. Pure.

An original DiT file holds four diffusers models under key prefixes. No weight changes shape; only the silence latent,
which has its own file, is transposed.
"""

from collections.abc import Mapping
from typing import Any

from acestep.checkpoints.architecture import Architecture, arguments

PREFIXES = {
    "transformer": "decoder.",
    "condition_encoder": "encoder.",
    "audio_tokenizer": "tokenizer.",
    "audio_token_detokenizer": "detokenizer.",
}
"""Diffusers model -> the prefix of its keys in an original file."""

OPTIONAL_PARTS = ("audio_tokenizer", "audio_token_detokenizer")
"""Models that a diffusers checkpoint may leave out."""

SILENCE_KEY = ("condition_encoder", "silence_latent")
"""The one tensor that an original checkpoint keeps outside its safetensors, as [1, channels, frames]."""

_RENAMES = (
    (".to_q.", ".q_proj."),
    (".to_k.", ".k_proj."),
    (".to_v.", ".v_proj."),
    (".to_out.0.", ".o_proj."),
    (".norm_q.", ".q_norm."),
    (".norm_k.", ".k_norm."),
)
_PATCH_RENAMES = (("proj_in_conv.", "proj_in.1."), ("proj_out_conv.", "proj_out.1."))

_SHARED = ("head_dim", "rope_theta", "attention_bias", "attention_dropout", "rms_norm_eps", "sliding_window")
_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
_TRANSFORMER = (
    "num_hidden_layers",
    "in_channels",
    "audio_acoustic_hidden_dim",
    "patch_size",
    "is_turbo",
    "model_version",
)
_CONDITION = (
    "text_hidden_dim",
    "timbre_hidden_dim",
    "num_lyric_encoder_hidden_layers",
    "num_timbre_encoder_hidden_layers",
)
_POOLER = ("audio_acoustic_hidden_dim", "pool_window_size", "num_attention_pooler_hidden_layers")
_QUANTIZER = ("fsq_dim", "fsq_input_levels", "fsq_input_num_quantizers")


def original_key(part: str, key: str) -> str | None:
    """The name that `key` of a diffusers model has in an original file; None for the silence latent."""
    if (part, key) == SILENCE_KEY:
        return None
    if (part, key) == ("condition_encoder", "null_condition_emb"):
        return key
    for ours, theirs in _RENAMES:
        key = key.replace(ours, theirs)
    if part == "transformer":
        for ours, theirs in _PATCH_RENAMES:
            key = theirs + key.removeprefix(ours) if key.startswith(ours) else key
    return PREFIXES[part] + key


def part_configs(architecture: Architecture) -> dict[str, dict[str, Any]]:
    """The constructor arguments of the four diffusers models of one original checkpoint."""
    given = arguments(architecture)
    shared = {name: given[name] for name in _SHARED}
    widths = {name: given[name] for name in _WIDTHS}
    encoder_widths = {name: given["encoder_" + name] or given[name] for name in _WIDTHS}
    layers = architecture.num_hidden_layers
    kinds = given["layer_types"] or ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    pooler = shared | encoder_widths | {name: given[name] for name in _POOLER}
    pooler["layer_types"] = kinds[: architecture.num_attention_pooler_hidden_layers]
    return {
        "transformer": shared
        | widths
        | {name: given[name] for name in _TRANSFORMER}
        | {"layer_types": kinds, "encoder_hidden_size": encoder_widths["hidden_size"]},
        "condition_encoder": shared | encoder_widths | {name: given[name] for name in _CONDITION},
        "audio_tokenizer": pooler | {name: given[name] for name in _QUANTIZER},
        "audio_token_detokenizer": pooler,
    }


def original_config(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of an original `config.json` that the configurations of the diffusers models stand for.

    Without an audio tokenizer its fields keep the values of every published checkpoint.
    """
    fields = {
        "transformer": {name: name for name in (*_SHARED, *_WIDTHS, *_TRANSFORMER, "layer_types")},
        "condition_encoder": {name: name for name in _CONDITION} | {name: "encoder_" + name for name in _WIDTHS},
        "audio_tokenizer": {name: name for name in (*_POOLER, *_QUANTIZER)},
    }
    return {
        original: configs[part][name]
        for part, names in fields.items()
        for name, original in names.items()
        if part in configs and name in configs[part]
    }
