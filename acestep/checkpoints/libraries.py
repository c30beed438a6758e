"""The modules of diffusers and transformers, imported in one place and without harmless log lines.

Importing diffusers imports torchao, and both log harmless lines: CUDA extensions that a CPU build cannot load, enum
registrations meant for torchao's authors, tensor classes of a torchao release that no longer exists. Only those records
are dropped, by logger and opening words, and only while importing; every other record passes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from acestep.importing import without_collection

_CHATTER = {
    "torchao": "Failed to load ",
    "torch.utils._pytree": "%s is an Enum subclass",
    "diffusers.quantizers.torchao.torchao_quantizer": "Unable to import `torchao` Tensor objects",
}
"""Logger -> how its harmless record starts (the format string, before its arguments are filled in)."""


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop the known harmless records while importing diffusers or torchao."""

    def keep(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_CHATTER[record.name])

    loggers = [logging.getLogger(name) for name in _CHATTER]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)


with quiet_imports(), without_collection():
    from diffusers.models import AutoencoderOobleck
    from diffusers.models.autoencoders.autoencoder_oobleck import (
        OobleckDecoder,
        OobleckEncoder,
        OobleckResidualUnit,
        Snake1d,
    )
    from diffusers.models.transformers.ace_step_transformer import (
        AceStepAttention,
        AceStepMLP,
        AceStepTransformer1DModel,
        AceStepTransformerBlock,
    )
    from diffusers.pipelines.ace_step.modeling_ace_step import (
        AceStepAttentionPooler,
        AceStepAudioTokenDetokenizer,
        AceStepAudioTokenizer,
        AceStepConditionEncoder,
        AceStepEncoderLayer,
        AceStepLyricEncoder,
        AceStepTimbreEncoder,
        _AceStepResidualFSQ,
    )
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM, Qwen3Model, Qwen3RotaryEmbedding

ResidualFSQ = _AceStepResidualFSQ

__all__ = [
    "AceStepAttention",
    "AceStepAttentionPooler",
    "AceStepAudioTokenDetokenizer",
    "AceStepAudioTokenizer",
    "AceStepConditionEncoder",
    "AceStepEncoderLayer",
    "AceStepLyricEncoder",
    "AceStepMLP",
    "AceStepTimbreEncoder",
    "AceStepTransformer1DModel",
    "AceStepTransformerBlock",
    "AutoencoderOobleck",
    "OobleckDecoder",
    "OobleckEncoder",
    "OobleckResidualUnit",
    "Qwen3Config",
    "Qwen3ForCausalLM",
    "Qwen3Model",
    "Qwen3RotaryEmbedding",
    "ResidualFSQ",
    "Snake1d",
    "quiet_imports",
]
