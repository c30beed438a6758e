"""The files of an adapter: its weights, and the configuration that PEFT writes beside them."""

import hashlib
from pathlib import Path

import msgspec

from acestep.errors import InvalidInputError
from acestep.regular_file import is_file, is_folder, open_regular
from acestep.units import MIB

_USUAL_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "lokr_weights.safetensors")
"""The weights as PEFT, diffusers and the trainer of ACE-Step (LoKr) call them, in a folder with other files too."""

_CONFIG = "adapter_config.json"
_SUFFIX = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_PICKLED = "pickled weights can run code when read and are refused; ask for the adapter as safetensors"


class AdapterSource(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one adapter; `config` is None where there is no configuration."""

    weights: Path
    config: Path | None


def source_of(path: Path) -> AdapterSource:
    """Return the files of the adapter at a path; raise `InvalidInputError` if there is not exactly one."""
    if is_folder(path):
        weights = _weights_in(path)
    elif not is_file(path):
        raise InvalidInputError(path, "is neither a file nor a folder here; give that of an adapter")
    elif path.suffix.lower() != _SUFFIX:
        raise InvalidInputError(path, f"is no safetensors file; {_PICKLED}")
    else:
        weights = path
    config = weights.parent / _CONFIG
    return AdapterSource(weights=weights, config=config if is_file(config) else None)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of the weights of the adapter at a path."""
    weights = source_of(path).weights
    try:
        with open_regular(weights) as file:
            digest = hashlib.sha256()
            while piece := file.read(MIB):
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise InvalidInputError(weights, f"cannot be read ({error.strerror or error})") from None


def _weights_in(folder: Path) -> Path:
    for name in _USUAL_NAMES:
        if is_file(folder / name):
            return folder / name
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise InvalidInputError(folder, f"cannot be read ({error.strerror or error})") from None
    weights = [path for path in inside if path.suffix == _SUFFIX]
    if len(weights) == 1:
        return weights[0]
    if weights:
        raise InvalidInputError(folder, f"holds several adapters ({', '.join(p.name for p in weights[:4])}); name one")
    if folders := [path for path in inside if any(is_file(path / name) for name in _USUAL_NAMES)]:
        raise InvalidInputError(folder, f"holds no adapter itself, but its folder {folders[0].name} does; name that")
    if pickles := [path for path in inside if path.suffix in _PICKLES]:
        raise InvalidInputError(folder, f"holds {pickles[0].name} but no safetensors; {_PICKLED}")
    raise InvalidInputError(folder, f"holds no adapter (*{_SUFFIX}); name the folder or the file that is one")
