"""A Qwen3 on disk: its configuration, and its body's weights whether or not they were saved as a language model's."""

from pathlib import Path

import torch

from acestep.checkpoints.architecture import arguments
from acestep.checkpoints.configs import qwen_architecture_in
from acestep.checkpoints.libraries import Qwen3Config, Qwen3Model
from acestep.checkpoints.tensor_folder import TensorFolder
from acestep.checkpoints.weights import fill

HEAD = "lm_head.weight"
"""A language model's output layer: in a file it is a copy of the embedding, or it is not used."""

_PREFIX = "model."
"""The key prefix of a body that was saved as part of a language model."""


def qwen_config(folder: Path) -> Qwen3Config:
    """Return the library's configuration for the sizes in `folder`, with a head that is the embedding.

    Raises `InvalidInputError` for a configuration that is missing or of another model.
    """
    return Qwen3Config(**arguments(qwen_architecture_in(folder)), tie_word_embeddings=True)


def fill_qwen(body: Qwen3Model, weights: TensorFolder, dtype: torch.dtype) -> None:
    """Load the weights of `body`; a head in the files is ignored."""
    shapes = {key: tuple(tensor.shape) for key, tensor in body.state_dict().items()}
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in weights.shapes) else ""
    weights.check({prefix + key: shape for key, shape in shapes.items()}, ignored=(HEAD,))
    fill(body, weights.read({prefix + key: key for key in shapes}, dtype))
