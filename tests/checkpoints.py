"""Checkpoints on disk for tests: the parts of a model written in the published layouts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from acestep.checkpoints.components import Components
from acestep.checkpoints.convert import PREFIXES, original_config, original_key

PARTS = (*PREFIXES, "vae", "text_encoder")


def tensors_of(components: Components) -> dict[str, Tensor]:
    """Every tensor of every part, the arithmetic buffers too."""
    return {
        f"{part}.{name}": tensor
        for part in PARTS
        if (module := getattr(components, part)) is not None
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def original_tensors(components: Components) -> dict[str, Tensor]:
    """The tensors of an original DiT file."""
    return {
        original: tensor
        for part in PREFIXES
        for key, tensor in getattr(components, part).state_dict().items()
        if (original := original_key(part, key)) is not None
    }


def write_original(components: Components, root: Path, name: str, *, shards: int = 1) -> Path:
    """Write a DiT folder in the original layout, with the VAE and the text encoder beside it; gives its path."""
    folder = root / name
    folder.mkdir(parents=True)
    configs = {part: dict(getattr(components, part).config) for part in PREFIXES}
    (folder / "config.json").write_text(json.dumps(original_config(configs) | {"architectures": ["AceStep"]}))
    write_weights(folder, original_tensors(components), shards=shards)
    silence = components.condition_encoder.silence_latent
    torch.save(silence.float().transpose(1, 2).contiguous(), folder / "silence_latent.pt")
    components.vae.save_pretrained(root / "vae")
    components.text_encoder.save_pretrained(root / "Qwen3-Embedding-0.6B")
    write_tokenizer(root / "Qwen3-Embedding-0.6B")
    return folder


def write_weights(folder: Path, tensors: dict[str, Tensor], *, shards: int = 1) -> None:
    """Write one safetensors file, or several and their index."""
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        held = {key: tensors[key] for key in sorted(tensors)[i::shards]}
        save_file(held, folder / file)
        weight_map.update(dict.fromkeys(held, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_diffusers(components: Components, folder: Path) -> Path:
    """Write every part as the library's own `save_pretrained` does, and the index of the parts."""
    index: dict[str, Any] = {"_class_name": "AceStepPipeline", "_diffusers_version": "0.42.1"}
    for part in PARTS:
        module = getattr(components, part)
        index[part] = [None, None] if module is None else ["diffusers", type(module).__name__]
        if module is not None:
            module.save_pretrained(folder / part)
    write_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer in the hub's format."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
