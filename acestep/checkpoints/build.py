"""Models without files: `tiny` has toy sizes, `dummy` the full ones; both make noise."""

from typing import Any, Literal

import msgspec
import torch

from acestep.checkpoints.architecture import Architecture, QwenArchitecture, VaeArchitecture, arguments
from acestep.checkpoints.catalog import Size, architecture_of, checkpoints_dir
from acestep.checkpoints.components import Components
from acestep.checkpoints.convert import part_configs
from acestep.checkpoints.host_memory import Weights, require_room_for
from acestep.checkpoints.libraries import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    Qwen3Config,
    Qwen3Model,
)
from acestep.checkpoints.tokenizer import ByteTokenizer
from acestep.checkpoints.weights import bare, empty, fill, random_tensors
from acestep.knobs import Variant

Materialise = Literal["random", "lazy", "meta"]

TINY_QWEN = QwenArchitecture(
    vocab_size=304,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)
TINY_LATENT = 2
"""Latent channels of the tiny model; the real ones have 64."""

TINY_VAE = VaeArchitecture(
    encoder_hidden_size=2 * TINY_LATENT,
    channel_multiples=(1, 1, 2, 2, 4),
    decoder_channels=2,
    decoder_input_channels=TINY_LATENT,
)
"""The real strides: 1,920 samples per latent frame at 48 kHz. The encoder gives a mean and a deviation per channel."""

AUDIO_GAIN = 0.03
"""Gain of random weights' last step to audio, so that their noise stays within full scale."""


def tiny_architecture(variant: Variant) -> Architecture:
    """A toy model with the structure of `variant`: grouped heads, and for XL a transformer wider than its encoders."""
    encoder = Architecture(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        in_channels=3 * TINY_LATENT,
        audio_acoustic_hidden_dim=TINY_LATENT,
        timbre_hidden_dim=TINY_LATENT,
        text_hidden_dim=TINY_QWEN.hidden_size,
        num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=2,
        num_attention_pooler_hidden_layers=2,
        fsq_dim=64,
        is_turbo=variant.is_turbo,
        model_version=variant.value.removeprefix("xl-"),
    )
    if not variant.is_xl:
        return encoder
    return msgspec.structs.replace(
        encoder,
        hidden_size=96,
        intermediate_size=160,
        num_attention_heads=8,
        encoder_hidden_size=64,
        encoder_intermediate_size=128,
        encoder_num_attention_heads=4,
        encoder_num_key_value_heads=2,
    )


def build(
    size: Size,
    variant: Variant = Variant.TURBO,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    materialise: Materialise = "random",
) -> Components:
    """A model made in code, the same on every call.

    `random` weights make noise that is finite and not silent; `lazy` ones have no values and cost no memory until
    something writes them, for runs that look only at sizes; `meta` ones have no storage at all. Raises
    `HostMemoryError` for random ones that do not fit into main memory.
    """
    if size == "tiny":
        architecture, vae, qwen = tiny_architecture(variant), TINY_VAE, TINY_QWEN
    else:
        architecture, vae, qwen = architecture_of(variant), VaeArchitecture(), QwenArchitecture()
    modules = bare_modules(architecture, vae, Qwen3Config(**arguments(qwen)))
    place = torch.device("meta" if materialise == "meta" else device)
    if materialise == "random" and place.type == "cpu":
        require_room_for(checkpoints_dir(), dtype, music=Weights(model=size, variant=variant))
    for name, module in modules.items():
        tensors = random_tensors(module, dtype, place) if materialise == "random" else empty(module, dtype, place)
        if materialise == "random" and name == "vae":
            tensors["decoder.conv2.weight_g"].fill_(AUDIO_GAIN)
        fill(module, tensors)
    return Components(variant=variant, tokenizer=ByteTokenizer(), is_noise=size, **modules)


def bare_modules(architecture: Architecture, vae: VaeArchitecture, qwen: Qwen3Config) -> dict[str, Any]:
    """Every module of a model by its name in `Components`, on `meta`."""
    configs = part_configs(architecture)
    return {
        "text_encoder": bare(Qwen3Model, qwen),
        "condition_encoder": bare(AceStepConditionEncoder, **configs["condition_encoder"]),
        "transformer": bare(AceStepTransformer1DModel, **configs["transformer"]),
        "vae": bare(AutoencoderOobleck, **arguments(vae)),
        "audio_tokenizer": bare(AceStepAudioTokenizer, **configs["audio_tokenizer"]),
        "audio_token_detokenizer": bare(AceStepAudioTokenDetokenizer, **configs["audio_token_detokenizer"]),
    }
