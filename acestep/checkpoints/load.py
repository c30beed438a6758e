"""Model weights from disk, in either layout, checked strictly; safetensors only, no remote code, no network."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acestep.checkpoints import catalog
from acestep.checkpoints.architecture import Architecture, VaeArchitecture
from acestep.checkpoints.build import bare_modules, build
from acestep.checkpoints.components import Components
from acestep.checkpoints.configs import architecture_in, has_parts, parts_in, vae_architecture_in
from acestep.checkpoints.convert import PREFIXES, SILENCE_KEY, original_key
from acestep.checkpoints.host_memory import Weights, require_room_for
from acestep.checkpoints.intact import SILENCE_FILE
from acestep.checkpoints.libraries import Qwen3Config
from acestep.checkpoints.locate import locate, locate_companion
from acestep.checkpoints.qwen import fill_qwen, qwen_config
from acestep.checkpoints.tensor_folder import TensorFolder
from acestep.checkpoints.tokenizer import HubTokenizer
from acestep.checkpoints.weights import fill
from acestep.errors import InvalidInputError, UsageError, first_line
from acestep.knobs import Quantization, Variant

_LOG = logging.getLogger(__name__)


def load(
    model: str,
    variant: Variant | None = None,
    *,
    dtype: torch.dtype,
    checkpoints_dir: Path | None = None,
    quantization: Quantization | None = None,
) -> Components:
    """Load the parts of `model`: `tiny`, `dummy`, a name in the catalog, a folder, or a repository in the hub's cache.

    `variant` chooses what `tiny` and `dummy` imitate; for weights on disk it must match them. `quantization` is the
    later format of the transformer. Raises `InvalidInputError` for missing or wrong weights, `UsageError` for an
    unknown name, `HostMemoryError` for weights that do not fit into main memory.
    """
    if model in catalog.SIZES:
        return build(catalog.SIZES[model], variant or Variant.TURBO, dtype=dtype)
    checkpoints = checkpoints_dir or catalog.checkpoints_dir()
    require_room_for(checkpoints, dtype, music=Weights(model=model, variant=variant, quantization=quantization))
    folder, checkpoint = locate(model, checkpoints), catalog.find(model)
    _LOG.info("the weights are in %s", folder)
    architecture = architecture_in(folder)
    found = catalog.variant_of(architecture, checkpoint.id if checkpoint else folder.name)
    if variant is not None and found is not variant:
        raise UsageError(f"{folder} holds {found}, not {variant}; ask for {found} or name another model")
    if has_parts(folder):
        parts = _read_diffusers(folder, architecture, dtype)
    else:
        parts = _read_original(folder, architecture, checkpoints, dtype)
    return Components(variant=found, **parts)


def _read_original(folder: Path, architecture: Architecture, checkpoints: Path, dtype: torch.dtype) -> dict[str, Any]:
    vae_folder = locate_companion("vae", folder, checkpoints)
    text_folder = locate_companion("text-encoder", folder, checkpoints)
    vae = vae_architecture_in(vae_folder, architecture)
    qwen = _text_encoder_config(text_folder, architecture)
    tokenizer = HubTokenizer(text_folder, qwen.vocab_size)
    modules = _bare_modules(folder, architecture, vae, qwen)
    weights = TensorFolder(folder)
    names = {part: _original_names(part, modules[part]) for part in PREFIXES}
    weights.check({name: shape for part in names.values() for name, (_, shape) in part.items()})
    for part, originals in names.items():
        tensors = weights.read({name: key for name, (key, _) in originals.items()}, dtype)
        if part == SILENCE_KEY[0]:
            shape = tuple(modules[part].silence_latent.shape)
            tensors[SILENCE_KEY[1]] = _silence_latent(folder / SILENCE_FILE, shape).to(dtype)
        fill(modules[part], tensors)
    _fill_from(modules["vae"], vae_folder, dtype)
    fill_qwen(modules["text_encoder"], TensorFolder(text_folder), dtype)
    return modules | {"tokenizer": tokenizer}


def _read_diffusers(folder: Path, architecture: Architecture, dtype: torch.dtype) -> dict[str, Any]:
    vae = vae_architecture_in(folder / "vae", architecture)
    qwen = _text_encoder_config(folder / "text_encoder", architecture)
    tokenizer = HubTokenizer(folder / "tokenizer", qwen.vocab_size)
    modules = _bare_modules(folder, architecture, vae, qwen)
    held = parts_in(folder)
    for part in (*held, "vae"):
        _fill_from(modules[part], folder / part, dtype)
    fill_qwen(modules["text_encoder"], TensorFolder(folder / "text_encoder"), dtype)
    for part in PREFIXES.keys() - set(held):
        modules[part] = None
    return modules | {"tokenizer": tokenizer}


def _bare_modules(folder: Path, architecture: Architecture, vae: VaeArchitecture, qwen: Qwen3Config) -> dict[str, Any]:
    """The modules without weights; the libraries refuse sizes that do not go together with errors of many kinds."""
    try:
        return bare_modules(architecture, vae, qwen)
    except (RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError, LookupError) as error:
        raise InvalidInputError(
            folder, f"has sizes in its configurations from which no model can be built ({first_line(error)[:200]})"
        ) from error


def _original_names(part: str, module: nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Original key -> (diffusers key, shape) of everything an original file must hold for `module`."""
    return {
        original: (key, shape)
        for key, shape in _shapes(module).items()
        if (original := original_key(part, key)) is not None
    }


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def _fill_from(module: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    weights, shapes = TensorFolder(folder), _shapes(module)
    weights.check(shapes)
    fill(module, weights.read({key: key for key in shapes}, dtype))


def _silence_latent(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The encoded silence as [1, frames, channels], from a file that holds [1, channels, frames]."""
    if not path.is_file():
        raise InvalidInputError(path, "is missing; songs without it drone, so download the checkpoint again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that the next lines refuse
            latent = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file can make the reader raise anything
        raise InvalidInputError(path, "is no plain tensor file; anything else in it could run code") from error
    expected = [shape[0], shape[2], shape[1]]
    if not isinstance(latent, Tensor) or not latent.is_floating_point() or list(latent.shape) != expected:
        got = f"shape {list(latent.shape)}" if isinstance(latent, Tensor) else type(latent).__name__
        raise InvalidInputError(path, f"holds {got}; expected a float tensor of shape {expected}")
    return latent.transpose(1, 2).contiguous()


def _text_encoder_config(folder: Path, architecture: Architecture) -> Qwen3Config:
    config = qwen_config(folder)
    if config.hidden_size != architecture.text_hidden_dim:
        raise InvalidInputError(
            folder / "config.json",
            f"hidden_size is {config.hidden_size!r}; the DiT expects {architecture.text_hidden_dim}",
        )
    return config
