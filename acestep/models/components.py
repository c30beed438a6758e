"""The loaded parts of one model, before anything decides where they live."""

import msgspec

from acestep.knobs import Variant
from acestep.models.libraries import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    Qwen3Model,
)
from acestep.models.tokenizer import Tokenizer


class Components(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Every module of one DiT checkpoint in eval mode without gradients; which modules they are never changes.

    The audio tokenizer and detokenizer are None where a checkpoint leaves them out: covers are then impossible.
    `is_noise` is "" for real weights, else "tiny" or "dummy": the songs are noise.
    """

    variant: Variant
    text_encoder: Qwen3Model
    condition_encoder: AceStepConditionEncoder
    transformer: AceStepTransformer1DModel
    vae: AutoencoderOobleck
    tokenizer: Tokenizer
    audio_tokenizer: AceStepAudioTokenizer | None = None
    audio_token_detokenizer: AceStepAudioTokenDetokenizer | None = None
    is_noise: str = ""
