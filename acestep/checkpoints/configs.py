"""The configurations in a checkpoint's folder, decoded strictly; no weights are read."""

import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from acestep.checkpoints.architecture import Architecture, VaeArchitecture
from acestep.checkpoints.convert import OPTIONAL_PARTS, PREFIXES, original_config, part_configs
from acestep.errors import InvalidInputError
from acestep.request import LATENT_HOP, SAMPLE_RATE
from acestep.units import MIB

A = TypeVar("A", Architecture, VaeArchitecture)

MODEL_INDEX = "model_index.json"
"""The file at the top of every checkpoint in the diffusers layout."""

MAX_JSON_BYTES = 64 * MIB
"""Largest configuration or index file that is read; the real ones are far smaller."""


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; raises `InvalidInputError` where there is none."""
    try:
        found = path.stat()
        # Opening a pipe waits for the program at its other end.
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInputError(path, "is no file but a folder, a pipe or a device")
        if found.st_size > MAX_JSON_BYTES:
            raise InvalidInputError(path, f"is larger than {MAX_JSON_BYTES} bytes and no configuration")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise InvalidInputError(path, f"cannot be read ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(path, f"is not a JSON object ({error})") from error


def has_parts(folder: Path) -> bool:
    """Whether the checkpoint in `folder` has a folder for each part (diffusers layout) rather than one file."""
    return is_file(folder / MODEL_INDEX)


def is_file(path: Path) -> bool:
    """Whether there is such a file that this user may look at; False for a name that no file can have, too."""
    try:
        return path.is_file()
    except OSError:
        return False


def parts_in(folder: Path) -> tuple[str, ...]:
    """Which of the diffusers models of an original file a checkpoint in the diffusers layout holds."""
    index = read_config(folder / MODEL_INDEX)
    absent = [part for part in OPTIONAL_PARTS if index.get(part) in (None, [None, None])]
    return tuple(part for part in PREFIXES if part not in absent)


def architecture_in(folder: Path) -> Architecture:
    """Return the architecture of the DiT checkpoint in `folder`, of either layout."""
    if not has_parts(folder):
        config = read_config(folder / "config.json")
        rope = config.get("rope_parameters")  # where newer transformers releases write rope_theta
        return _decode(rope | config if isinstance(rope, dict) else config, Architecture, folder / "config.json")
    configs = {part: read_config(folder / part / "config.json") for part in parts_in(folder)}
    architecture = _decode(original_config(configs), Architecture, folder / "transformer" / "config.json")
    _check_agreement(configs, architecture, folder)
    return architecture


def vae_architecture_in(folder: Path, architecture: Architecture) -> VaeArchitecture:
    """Return the architecture of the VAE in `folder`; raise `InvalidInputError` if it does not fit the transformer."""
    source = folder / "config.json"
    config = read_config(source)
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


def _decode(config: Mapping[str, Any], kind: type[A], source: Path) -> A:
    """The fields of `kind` in `config`; null means the default."""
    try:
        return msgspec.convert({k: v for k, v in config.items() if v is not None}, kind)
    except msgspec.ValidationError as error:
        raise InvalidInputError(source, str(error)) from error


def _check_agreement(configs: Mapping[str, Mapping[str, Any]], architecture: Architecture, folder: Path) -> None:
    """Require that the parts' configurations describe one model, so that none is silently read differently."""
    for part, expected in part_configs(architecture).items():
        for name, value in expected.items():
            got = configs.get(part, {}).get(name)
            if got is not None and got != value:
                raise InvalidInputError(
                    folder / part / "config.json", f"{name} is {got!r}; the other parts need {value!r}"
                )
