"""The names by which files call the layers of the transformer. Pure.

PEFT, as the trainer of ACE-Step writes it: ``base_model.model.layers.0.self_attn.q_proj``. diffusers:
``transformer.layers.0.self_attn.to_q``. ComfyUI: ``diffusion_model.decoder.layers.0.self_attn.q_proj``. kohya and
LyCORIS write ``_`` for every dot: ``lora_unet_layers_0_self_attn_q_proj``, ``lycoris_layers_0_self_attn_q_proj``.
"""

import re
from collections.abc import Iterable

from acestep.checkpoints.convert import PREFIXES, original_key

PEFT_PREFIX = "base_model.model."
"""The beginning of every name in a file of PEFT's."""

_DOTTED = tuple(
    outer + inner
    for outer in ("", PEFT_PREFIX, "transformer.", "diffusion_model.")
    for inner in ("", PREFIXES["transformer"])
)
_FLAT = tuple(outer + inner for outer in ("lora_unet_", "lycoris_", "lora_transformer_") for inner in ("", "decoder_"))

_WEIGHT = ".weight"

_BLOCK = re.compile(r"(?:^|[._])layers[._](\d+)[._]")


def layers_by_name(layers: Iterable[str]) -> dict[str, str]:
    """Return every name that a file may call a layer by, with the layer as diffusers names it."""
    return {name: layer for layer in layers for name in _names(layer)}


def without_prefix(name: str) -> str:
    """Return a layer's name without the beginning that tells the layout, as the patterns of a configuration have it."""
    for prefix in sorted(_DOTTED, key=len, reverse=True):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def block_of(name: str) -> str | None:
    """Return the number of the transformer's block in the name of a layer; None for a layer outside the blocks."""
    found = _BLOCK.search(name)
    return None if found is None else found[1]


def is_of_convolution(name: str) -> bool:
    """Whether a name is that of the one convolution that adapters change."""
    return "proj_in" in name


def _names(layer: str) -> set[str]:
    """The names of a layer in both layouts of a checkpoint, with each beginning that files have."""
    original = original_key("transformer", layer + _WEIGHT) or ""
    both = {layer, original.removeprefix(PREFIXES["transformer"]).removesuffix(_WEIGHT)}
    dotted = {prefix + name for prefix in _DOTTED for name in both}
    return dotted | {prefix + name.replace(".", "_") for prefix in _FLAT for name in both}
