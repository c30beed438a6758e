"""The original checkpoint layout and the diffusers one, each made from the other; pure."""

from typing import Any

from acestep.models.architecture import Architecture

PARTS = ("transformer", "condition_encoder", "audio_tokenizer", "audio_token_detokenizer")
"""The diffusers models that one original DiT file holds."""


def part_configs(architecture: Architecture) -> dict[str, dict[str, Any]]:
    """The constructor arguments of the four diffusers models of one original checkpoint, by part."""
    a = architecture
    shared = {
        "head_dim": a.head_dim,
        "rope_theta": a.rope_theta,
        "attention_bias": a.attention_bias,
        "attention_dropout": a.attention_dropout,
        "rms_norm_eps": a.rms_norm_eps,
        "sliding_window": a.sliding_window,
    }
    encoder = shared | {
        "hidden_size": a.encoder_width,
        "intermediate_size": a.encoder_intermediate_size or a.intermediate_size,
        "num_attention_heads": a.encoder_num_attention_heads or a.num_attention_heads,
        "num_key_value_heads": a.encoder_num_key_value_heads or a.num_key_value_heads,
    }
    pooler = encoder | {
        "audio_acoustic_hidden_dim": a.audio_acoustic_hidden_dim,
        "pool_window_size": a.pool_window_size,
        "num_attention_pooler_hidden_layers": a.num_attention_pooler_hidden_layers,
        "layer_types": _layer_types(a, a.num_attention_pooler_hidden_layers),
    }
    return {
        "transformer": shared
        | {
            "hidden_size": a.hidden_size,
            "intermediate_size": a.intermediate_size,
            "num_hidden_layers": a.num_hidden_layers,
            "num_attention_heads": a.num_attention_heads,
            "num_key_value_heads": a.num_key_value_heads,
            "in_channels": a.in_channels,
            "audio_acoustic_hidden_dim": a.audio_acoustic_hidden_dim,
            "patch_size": a.patch_size,
            "layer_types": _layer_types(a, a.num_hidden_layers),
            "encoder_hidden_size": a.encoder_width,
            "is_turbo": a.is_turbo,
            "model_version": a.model_version,
        },
        "condition_encoder": encoder
        | {
            "text_hidden_dim": a.text_hidden_dim,
            "timbre_hidden_dim": a.timbre_hidden_dim,
            "num_lyric_encoder_hidden_layers": a.num_lyric_encoder_hidden_layers,
            "num_timbre_encoder_hidden_layers": a.num_timbre_encoder_hidden_layers,
        },
        "audio_tokenizer": pooler
        | {
            "fsq_dim": a.fsq_dim,
            "fsq_input_levels": list(a.fsq_input_levels),
            "fsq_input_num_quantizers": a.fsq_input_num_quantizers,
        },
        "audio_token_detokenizer": pooler,
    }


def _layer_types(architecture: Architecture, layers: int) -> list[str]:
    kinds = architecture.layer_types or tuple(
        "full_attention" if i % 2 else "sliding_attention" for i in range(architecture.num_hidden_layers)
    )
    return list(kinds[:layers])
