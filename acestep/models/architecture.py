"""Shapes of the parts: the checkpoints' own `config.json` fields, as values."""

import msgspec


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an original DiT checkpoint's `config.json` that shape its weights; others are ignored.

    A missing `encoder_*` value means the encoders share the transformer's value, as in every 2B checkpoint.
    The defaults are the 2B checkpoints' values.
    """

    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    encoder_hidden_size: int | None = None
    encoder_intermediate_size: int | None = None
    encoder_num_attention_heads: int | None = None
    encoder_num_key_value_heads: int | None = None
    in_channels: int = 192
    audio_acoustic_hidden_dim: int = 64
    patch_size: int = 2
    rope_theta: float = 1_000_000.0
    attention_bias: bool = False
    attention_dropout: float = 0.0
    rms_norm_eps: float = 1e-6
    sliding_window: int = 128
    layer_types: tuple[str, ...] | None = None
    text_hidden_dim: int = 1024
    timbre_hidden_dim: int = 64
    num_lyric_encoder_hidden_layers: int = 8
    num_timbre_encoder_hidden_layers: int = 4
    num_attention_pooler_hidden_layers: int = 2
    pool_window_size: int = 5
    fsq_dim: int = 2048
    fsq_input_levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    fsq_input_num_quantizers: int = 1
    is_turbo: bool = False
    model_version: str | None = None

    @property
    def encoder_width(self) -> int:
        """Width of the condition encoder's output."""
        return self.encoder_hidden_size or self.hidden_size

    @property
    def is_xl(self) -> bool:
        """Whether the transformer is wider than its encoders, which only the XL checkpoints are."""
        return self.encoder_width != self.hidden_size


class VaeArchitecture(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `AutoencoderOobleck`; the defaults are ACE-Step's VAE, not the library's class defaults."""

    encoder_hidden_size: int = 128
    downsampling_ratios: tuple[int, ...] = (2, 4, 4, 6, 10)
    channel_multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    decoder_channels: int = 128
    decoder_input_channels: int = 64
    audio_channels: int = 2
    sampling_rate: int = 48_000


class QwenArchitecture(msgspec.Struct, frozen=True, kw_only=True):
    """A Qwen3 decoder: the text encoder, or a planner language model (then with tied embeddings).

    The defaults are Qwen3-Embedding-0.6B, the text encoder of every checkpoint.
    """

    vocab_size: int = 151_669
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    max_position_embeddings: int = 32_768
