"""A Qwen3 on disk: its configuration, and its body's weights whether or not they were saved as a language model's."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from acestep.checkpoints.configs import read_config
from acestep.checkpoints.libraries import Qwen3Config, Qwen3Model
from acestep.checkpoints.tensor_folder import TensorFolder
from acestep.checkpoints.weights import fill
from acestep.errors import InvalidInputError

HEAD = "lm_head.weight"
"""A language model's output layer: in a file it is a copy of the embedding, or it is not used."""

_PREFIX = "model."
"""The key prefix of a body that was saved as part of a language model."""


def qwen_config(folder: Path) -> Qwen3Config:
    """Return the configuration in `folder`; raise `InvalidInputError` if it is missing or of another model."""
    source = folder / "config.json"
    fields = read_config(source)
    if fields.get("model_type") != "qwen3":
        raise InvalidInputError(source, f"model_type is {fields.get('model_type')!r}; expected 'qwen3'")
    try:
        return Qwen3Config.from_dict(fields)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        raise InvalidInputError(source, f"is no Qwen3 configuration ({error})") from error


def fill_qwen(body: Qwen3Model, weights: TensorFolder, dtype: torch.dtype) -> None:
    """Load the weights of `body`; a head in the files is ignored."""
    shapes = {key: tuple(tensor.shape) for key, tensor in body.state_dict().items()}
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in weights.shapes) else ""
    weights.check({prefix + key: shape for key, shape in shapes.items()}, ignored=(HEAD,))
    fill(body, weights.read({prefix + key: key for key in shapes}, dtype))
