"""Shapes of the parts: the checkpoints' own `config.json` fields, as values."""

from typing import Annotated, Any, Literal

import msgspec

_Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
"""Limits far above any real model, so that a broken configuration is refused before anything is built from it."""

AttentionKind = Literal["sliding_attention", "full_attention"]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an original DiT checkpoint's `config.json` that shape its weights; others are ignored.

    A missing `encoder_*` value means the encoders share the transformer's value, as in every 2B checkpoint.
    The defaults are the 2B checkpoints' values.
    """

    hidden_size: _Size = 2048
    intermediate_size: _Size = 6144
    num_hidden_layers: Layers = 24
    num_attention_heads: _Size = 16
    num_key_value_heads: _Size = 8
    head_dim: _Size = 128
    encoder_hidden_size: _Size | None = None
    encoder_intermediate_size: _Size | None = None
    encoder_num_attention_heads: _Size | None = None
    encoder_num_key_value_heads: _Size | None = None
    in_channels: _Size = 192
    audio_acoustic_hidden_dim: _Size = 64
    patch_size: _Size = 2
    rope_theta: float = 1_000_000.0
    attention_bias: bool = False
    attention_dropout: float = 0.0
    rms_norm_eps: float = 1e-6
    sliding_window: _Size = 128
    layer_types: tuple[AttentionKind, ...] | None = None
    text_hidden_dim: _Size = 1024
    timbre_hidden_dim: _Size = 64
    num_lyric_encoder_hidden_layers: Layers = 8
    num_timbre_encoder_hidden_layers: Layers = 4
    num_attention_pooler_hidden_layers: Layers = 2
    pool_window_size: _Size = 5
    fsq_dim: _Size = 2048
    fsq_input_levels: tuple[_Size, ...] = (8, 8, 8, 5, 5, 5)
    fsq_input_num_quantizers: _Size = 1
    is_turbo: bool = False
    model_version: str | None = None

    def __post_init__(self) -> None:
        if self.layer_types is not None and len(self.layer_types) < self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} of {self.num_hidden_layers} layers")

    @property
    def encoder_width(self) -> int:
        """Width of the condition encoder's output."""
        return self.encoder_hidden_size or self.hidden_size

    @property
    def is_xl(self) -> bool:
        """Whether the transformer is wider than its encoders; only XL checkpoints are."""
        return self.encoder_width != self.hidden_size


class VaeArchitecture(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `AutoencoderOobleck`; the defaults are ACE-Step's VAE, not the library's class defaults."""

    encoder_hidden_size: _Size = 128
    downsampling_ratios: tuple[_Size, ...] = (2, 4, 4, 6, 10)
    channel_multiples: tuple[_Size, ...] = (1, 2, 4, 8, 16)
    decoder_channels: _Size = 128
    decoder_input_channels: _Size = 64
    audio_channels: _Size = 2
    sampling_rate: _Size = 48_000


class QwenArchitecture(msgspec.Struct, frozen=True, kw_only=True):
    """A Qwen3 decoder: the text encoder, or a planner language model (then with tied embeddings).

    The defaults are Qwen3-Embedding-0.6B, the text encoder of every checkpoint.
    """

    vocab_size: _Size = 151_669
    hidden_size: _Size = 1024
    intermediate_size: _Size = 3072
    num_hidden_layers: Layers = 28
    num_attention_heads: _Size = 16
    num_key_value_heads: _Size = 8
    head_dim: _Size = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    max_position_embeddings: _Size = 32_768


def arguments(architecture: msgspec.Struct) -> dict[str, Any]:
    """The fields as a model class takes them and JSON stores them: sequences are lists."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(architecture))
    return fields
