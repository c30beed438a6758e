"""Model weights from disk, in either layout, checked strictly; safetensors only, no remote code, no network."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from acestep.errors import InvalidInputError, UsageError
from acestep.knobs import Variant
from acestep.models.architecture import Architecture, VaeArchitecture
from acestep.models.build import SIZES, bare_modules, build
from acestep.models.catalog import checkpoints_dir as default_checkpoints_dir
from acestep.models.catalog import variant_of
from acestep.models.components import Components
from acestep.models.convert import OPTIONAL_PARTS, PREFIXES, SILENCE, original_config, original_key, part_configs
from acestep.models.libraries import Qwen3Config
from acestep.models.locate import MODEL_INDEX, locate, locate_companion
from acestep.models.tensor_folder import TensorFolder, read_json
from acestep.models.tokenizer import HubTokenizer
from acestep.models.weights import fill
from acestep.request import LATENT_HOP, SAMPLE_RATE

A = TypeVar("A", Architecture, VaeArchitecture)

SILENCE_FILE = "silence_latent.pt"
TEXT_ENCODER_FOLDER = "Qwen3-Embedding-0.6B"


def load(
    model: str, variant: Variant | None = None, *, dtype: torch.dtype, checkpoints_dir: Path | None = None
) -> Components:
    """The parts of `model`: `tiny`, `dummy`, a name in the catalog, a folder, or a repository in the hub's cache.

    `variant` chooses what `tiny` and `dummy` imitate; for weights on disk it must be what they are. Raises
    `InvalidInputError` for weights that are missing or wrong, `UsageError` for a name that means nothing.
    """
    if model in SIZES:
        return build(SIZES[model], variant or Variant.TURBO, dtype=dtype)
    checkpoints = checkpoints_dir or default_checkpoints_dir()
    folder = locate(model, checkpoints)
    if (folder / MODEL_INDEX).is_file():
        components = _load_diffusers(folder, dtype)
    else:
        components = _load_original(folder, checkpoints, dtype)
    if variant is not None and components.variant is not variant:
        raise UsageError(
            f"{folder} holds {components.variant}, not {variant}; leave the variant out or name another model"
        )
    return components


def _load_original(folder: Path, checkpoints: Path, dtype: torch.dtype) -> Components:
    architecture = _decode(_flat(read_json(folder / "config.json")), Architecture, folder / "config.json")
    vae_folder = locate_companion("vae", folder, checkpoints)
    text_folder = locate_companion(TEXT_ENCODER_FOLDER, folder, checkpoints)
    modules = bare_modules(architecture, _vae_architecture(vae_folder, architecture), _qwen_config(text_folder))
    weights = TensorFolder(folder)
    names = {part: _original_names(part, modules[part]) for part in PREFIXES}
    weights.check({original: shape for part in names.values() for original, (_, shape) in part.items()})
    for part, originals in names.items():
        tensors = weights.read({original: key for original, (key, _) in originals.items()}, dtype)
        if part == SILENCE[0]:
            shape = modules[part].silence_latent.shape
            tensors[SILENCE[1]] = _silence_latent(folder / SILENCE_FILE, shape).to(dtype)
        fill(modules[part], tensors)
    _load_qwen(modules["text_encoder"], text_folder, dtype)
    _load_part(modules["vae"], vae_folder, dtype)
    return Components(variant=variant_of(architecture, folder.name), tokenizer=HubTokenizer(text_folder), **modules)


def _load_diffusers(folder: Path, dtype: torch.dtype) -> Components:
    index = read_json(folder / MODEL_INDEX)
    absent = [part for part in OPTIONAL_PARTS if index.get(part) in (None, [None, None])]
    parts = [part for part in PREFIXES if part not in absent]
    configs = {part: read_json(folder / part / "config.json") for part in parts}
    source = folder / "transformer" / "config.json"
    architecture = _decode(original_config(configs), Architecture, source)
    _check_agreement(configs, architecture, folder)
    modules = bare_modules(
        architecture, _vae_architecture(folder / "vae", architecture), _qwen_config(folder / "text_encoder")
    )
    for part in (*parts, "vae"):
        _load_part(modules[part], folder / part, dtype)
    _load_qwen(modules["text_encoder"], folder / "text_encoder", dtype)
    modules.update(dict.fromkeys(absent))
    return Components(
        variant=variant_of(architecture, folder.name), tokenizer=HubTokenizer(folder / "tokenizer"), **modules
    )


def _original_names(part: str, module: nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Original key -> (diffusers key, shape) of everything an original file must hold for `module`."""
    return {
        original: (key, tuple(tensor.shape))
        for key, tensor in module.state_dict().items()
        if (original := original_key(part, key)) is not None
    }


def _load_part(module: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    weights = TensorFolder(folder)
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    weights.check(expected)
    fill(module, weights.read({key: key for key in expected}, dtype))


def _load_qwen(module: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Fill the text encoder from files saved with a language model's key prefix and head, or without."""
    weights = TensorFolder(folder)
    prefix = "model." if any(key.startswith("model.") for key in weights.shapes) else ""
    names = {prefix + key: key for key in module.state_dict()}
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    weights.check({stored: shapes[key] for stored, key in names.items()}, ignored=("lm_head.weight",))
    fill(module, weights.read(names, dtype))


def _silence_latent(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The encoded silence as [1, frames, channels], from a file that holds [1, channels, frames]."""
    if not path.is_file():
        raise InvalidInputError(path, "is missing; songs without it drone, so download the checkpoint again")
    try:
        latent = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise InvalidInputError(path, "is no plain tensor file; anything else in it could run code") from error
    expected = [shape[0], shape[2], shape[1]]
    if not isinstance(latent, Tensor) or not latent.is_floating_point() or list(latent.shape) != expected:
        got = f"shape {list(latent.shape)}" if isinstance(latent, Tensor) else type(latent).__name__
        raise InvalidInputError(path, f"holds {got}; expected a float tensor of shape {expected}")
    return latent.transpose(1, 2).contiguous()


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """An original configuration with `rope_theta` at the top, where newer transformers releases no longer write it."""
    rope = config.get("rope_parameters")
    return rope | config if isinstance(rope, dict) else config


def _decode(config: Mapping[str, Any], kind: type[A], source: Path) -> A:
    """The fields of `kind` in `config`; null means the default."""
    try:
        return msgspec.convert({k: v for k, v in config.items() if v is not None}, kind)
    except msgspec.ValidationError as error:
        raise InvalidInputError(source, str(error)) from error


def _vae_architecture(folder: Path, architecture: Architecture) -> VaeArchitecture:
    source = folder / "config.json"
    config = read_json(source)
    if missing := [name for name in VaeArchitecture.__struct_fields__ if config.get(name) is None]:
        raise InvalidInputError(source, f"lacks {', '.join(missing)}")
    vae = _decode(config, VaeArchitecture, source)
    hop = math.prod(vae.downsampling_ratios)
    if (hop, vae.sampling_rate) != (LATENT_HOP, SAMPLE_RATE):
        raise InvalidInputError(
            source, f"{hop} samples a frame at {vae.sampling_rate} Hz; expected {LATENT_HOP} at {SAMPLE_RATE} Hz"
        )
    if vae.decoder_input_channels != architecture.audio_acoustic_hidden_dim:
        raise InvalidInputError(
            source,
            f"decoder_input_channels is {vae.decoder_input_channels}; "
            f"the transformer makes {architecture.audio_acoustic_hidden_dim} channels",
        )
    return vae


def _qwen_config(folder: Path) -> Qwen3Config:
    source = folder / "config.json"
    config = read_json(source)
    if config.get("model_type") != "qwen3":
        raise InvalidInputError(source, f"model_type is {config.get('model_type')!r}; expected 'qwen3'")
    try:
        return Qwen3Config.from_dict(config)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidInputError(source, f"is no Qwen3 configuration ({error})") from error


def _check_agreement(configs: Mapping[str, Mapping[str, Any]], architecture: Architecture, folder: Path) -> None:
    """Require that the parts' configurations describe one model, so that none is silently read differently."""
    for part, expected in part_configs(architecture).items():
        for name, value in expected.items():
            got = configs.get(part, {}).get(name)
            if got is not None and got != value:
                raise InvalidInputError(
                    folder / part / "config.json", f"{name} is {got!r}; the other parts need {value!r}"
                )
