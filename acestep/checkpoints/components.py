"""The loaded parts of one model, before they are placed on a device."""

import msgspec
import torch
from torch import nn

from acestep.adapter_memory import NO_ADAPTERS, AdapterMemory
from acestep.checkpoints.libraries import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    Qwen3Model,
)
from acestep.checkpoints.tokenizer import Tokenizer
from acestep.fused_adapter import FusedAdapter
from acestep.knobs import Variant


class Components(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Every module of one DiT checkpoint in eval mode without gradients; the set of modules never changes.

    The audio tokenizer and detokenizer are None if a checkpoint leaves them out: covers are then impossible. `is_noise`
    is None for real weights, else "tiny" or "dummy": the songs are noise. `adapters` change the transformer;
    `adapter_memory` is that of those beside its weights.
    """

    variant: Variant
    text_encoder: Qwen3Model
    condition_encoder: AceStepConditionEncoder
    transformer: AceStepTransformer1DModel
    vae: AutoencoderOobleck
    tokenizer: Tokenizer
    audio_tokenizer: AceStepAudioTokenizer | None = None
    audio_token_detokenizer: AceStepAudioTokenDetokenizer | None = None
    is_noise: str | None = None
    adapters: tuple[FusedAdapter, ...] = ()
    adapter_memory: AdapterMemory = NO_ADAPTERS

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations, and of weights that are not quantized."""
        dtype: torch.dtype = self.condition_encoder.null_condition_emb.dtype
        return dtype

    def modules(self) -> dict[str, nn.Module]:
        """The parts that can be moved on their own, by name; the VAE's two halves are never needed together."""
        parts: dict[str, nn.Module | None] = {
            "text_encoder": self.text_encoder,
            "condition_encoder": self.condition_encoder,
            "transformer": self.transformer,
            "vae_encoder": self.vae.encoder,
            "vae_decoder": self.vae.decoder,
            "audio_tokenizer": self.audio_tokenizer,
            "audio_token_detokenizer": self.audio_token_detokenizer,
        }
        return {name: module for name, module in parts.items() if module is not None}

    def blocks(self) -> list[nn.Module]:
        """The layers that offload may stream, in the order in which they run: one shape within each stack."""
        condition, tokenizer, detokenizer = self.condition_encoder, self.audio_tokenizer, self.audio_token_detokenizer
        stacks = (
            self.text_encoder.layers,
            condition.lyric_encoder.layers,
            condition.timbre_encoder.layers,
            self.transformer.layers,
            () if tokenizer is None else tokenizer.attention_pooler.layers,
            () if detokenizer is None else detokenizer.layers,
        )
        return [layer for stack in stacks for layer in stack]
