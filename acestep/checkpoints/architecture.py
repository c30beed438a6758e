"""Shapes of the parts: the checkpoints' own `config.json` fields, as values."""

import math
from typing import Annotated, Any, Literal

import msgspec

_Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=256)]
_Few = msgspec.Meta(min_length=1, max_length=16)
"""Limits far above any real model, so that a broken configuration is refused before anything is built from it."""

_Theta = Annotated[float, msgspec.Meta(ge=1, le=1e12)]
_Epsilon = Annotated[float, msgspec.Meta(gt=0, le=0.1)]
_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
"""Ranges outside of which the arithmetic gives no numbers."""

_Level = Annotated[int, msgspec.Meta(ge=2, le=1024)]

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
    rope_theta: _Theta = 1_000_000.0
    attention_bias: bool = False
    attention_dropout: _Share = 0.0
    rms_norm_eps: _Epsilon = 1e-6
    sliding_window: _Size = 128
    layer_types: tuple[AttentionKind, ...] | None = None
    text_hidden_dim: _Size = 1024
    timbre_hidden_dim: _Size = 64
    num_lyric_encoder_hidden_layers: Layers = 8
    num_timbre_encoder_hidden_layers: Layers = 4
    num_attention_pooler_hidden_layers: Layers = 2
    pool_window_size: _Size = 5
    fsq_dim: _Size = 2048
    fsq_input_levels: Annotated[tuple[_Level, ...], _Few] = (8, 8, 8, 5, 5, 5)
    fsq_input_num_quantizers: _Size = 1
    is_turbo: bool = False
    model_version: str | None = None

    def __post_init__(self) -> None:
        if self.layer_types is not None and len(self.layer_types) < self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} of {self.num_hidden_layers} layers")
        _require_heads(self.num_attention_heads, self.num_key_value_heads, self.head_dim)
        _require_heads(
            self.encoder_num_attention_heads or self.num_attention_heads,
            self.encoder_num_key_value_heads or self.num_key_value_heads,
            self.head_dim,
        )
        if math.prod(self.fsq_input_levels) > _MOST_CODES:
            raise ValueError(
                f"fsq_input_levels give {math.prod(self.fsq_input_levels):,} codes; at most {_MOST_CODES:,}"
            )

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
    downsampling_ratios: Annotated[tuple[_Size, ...], _Few] = (2, 4, 4, 6, 10)
    channel_multiples: Annotated[tuple[_Size, ...], _Few] = (1, 2, 4, 8, 16)
    decoder_channels: _Size = 128
    decoder_input_channels: _Size = 64
    audio_channels: _Size = 2
    sampling_rate: _Size = 48_000

    def __post_init__(self) -> None:
        if len(self.channel_multiples) != len(self.downsampling_ratios):
            raise ValueError(
                f"channel_multiples has {len(self.channel_multiples)} values and downsampling_ratios"
                f" {len(self.downsampling_ratios)}; expected one for each"
            )


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
    rms_norm_eps: _Epsilon = 1e-6
    rope_theta: _Theta = 1_000_000.0
    max_position_embeddings: _Size = 32_768

    def __post_init__(self) -> None:
        _require_heads(self.num_attention_heads, self.num_key_value_heads, self.head_dim)


_MOST_CODES = 2**20
"""Audio codes of a codebook; the real one has 64,000."""


def _require_heads(queries: int, keys: int, width: int) -> None:
    """Each key is read by the same number of queries, and rotary embedding turns pairs of values."""
    if queries % keys:
        raise ValueError(f"{queries} attention heads cannot share {keys} key and value heads evenly")
    if width % 2:
        raise ValueError(f"head_dim is {width}; expected an even number")


def arguments(architecture: msgspec.Struct) -> dict[str, Any]:
    """The fields as a model class takes them and JSON stores them: sequences are lists."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(architecture))
    return fields
