"""The planner's language models: from disk, or made here as noise of toy or full size."""

from pathlib import Path

import msgspec
import torch

from acestep.checkpoints import catalog
from acestep.checkpoints.architecture import QwenArchitecture, arguments
from acestep.checkpoints.build import TINY_QWEN, Materialise
from acestep.checkpoints.catalog import DUMMY_PREFIX, LM_ARCHITECTURES, TINY, Size
from acestep.checkpoints.configs import read_config
from acestep.checkpoints.host_memory import LanguageWeights, require_room_for
from acestep.checkpoints.libraries import Qwen3Config, Qwen3ForCausalLM
from acestep.checkpoints.locate import locate_lm
from acestep.checkpoints.quantize import quantize
from acestep.checkpoints.qwen import HEAD, fill_qwen, qwen_config
from acestep.checkpoints.tensor_folder import TensorFolder
from acestep.checkpoints.weights import bare, empty, fill, random_tensors
from acestep.errors import InvalidInputError
from acestep.knobs import Quantization

TINY_VOCABULARY = 65_796
"""The vocabulary size of the planner's tokenizer without files: bytes, special tokens and audio codes."""


class LanguageModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A `Qwen3ForCausalLM` in eval mode without gradients, whose head and embedding are one tensor.

    `is_noise` is None for real weights, else "tiny" or "dummy": the plans are noise.
    """

    id: str
    module: Qwen3ForCausalLM
    is_noise: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations and of unquantised weights."""
        dtype: torch.dtype = self.module.lm_head.weight.dtype
        return dtype

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        size: int = self.module.config.vocab_size
        return size


def load_lm(
    name: str,
    *,
    dtype: torch.dtype,
    checkpoints_dir: Path | None = None,
    quantization: Quantization | None = None,
    packed: bool = False,
) -> LanguageModel:
    """Load the language model `name`: `tiny`, `dummy:SIZE`, a name in the catalog, or a folder.

    `quantization` is the format that `quantize_lm` will be called with; `packed`: it will be packed. Raises
    `InvalidInputError` for missing or wrong weights, `UsageError` for an unknown name, `HostMemoryError` for weights
    that do not fit into main memory.
    """
    if name == TINY:
        return build_lm("tiny", dtype=dtype)
    if name.startswith(DUMMY_PREFIX):
        return build_lm("dummy", catalog.lm_checkpoint(name.removeprefix(DUMMY_PREFIX)).id, dtype=dtype)
    checkpoints = checkpoints_dir or catalog.checkpoints_dir()
    folder, checkpoint = locate_lm(name, checkpoints), catalog.find(name)
    weights = LanguageWeights(name=name, quantization=quantization, packed=packed)
    require_room_for(checkpoints, dtype, language=weights)
    return LanguageModel(id=checkpoint.id if checkpoint else folder.name, module=_read(folder, dtype))


def build_lm(
    size: Size,
    lm_id: str = TINY,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    materialise: Materialise = "random",
    vocab_size: int = TINY_VOCABULARY,
) -> LanguageModel:
    """Build a language model in code, the same on every call; `materialise` as in `build`.

    `lm_id` is the language model whose size a `dummy` has; `vocab_size` is for `tiny` only.
    """
    architecture = tiny_lm_architecture(vocab_size) if size == "tiny" else LM_ARCHITECTURES[lm_id]
    module = _bare(Qwen3Config(**arguments(architecture), tie_word_embeddings=True))
    place = torch.device("meta" if materialise == "meta" else device)
    name = TINY if size == "tiny" else DUMMY_PREFIX + lm_id
    if materialise == "random" and place.type == "cpu":
        require_room_for(catalog.checkpoints_dir(), dtype, language=LanguageWeights(name=name))
    made = random_tensors if materialise == "random" else empty
    fill(module.model, made(module.model, dtype, place))
    _tie(module)
    return LanguageModel(id=name, module=module, is_noise=size)


def tiny_lm_architecture(vocab_size: int) -> QwenArchitecture:
    """A toy model with the structure of the real ones: grouped heads."""
    return msgspec.structs.replace(TINY_QWEN, vocab_size=vocab_size, num_hidden_layers=3)


def quantize_lm(model: LanguageModel, quantization: Quantization) -> None:
    """Replace the weights of the linear layers in place.

    The head is the embedding, which is indexed and not multiplied, so both stay unchanged.
    """
    quantize(model.module.model, quantization)


def _read(folder: Path, dtype: torch.dtype) -> Qwen3ForCausalLM:
    """Read the model in `folder`, from files with or without its head and with or without the prefix of its body."""
    source = folder / "config.json"
    config, weights = qwen_config(folder), TensorFolder(folder)
    if HEAD in weights.shapes and not read_config(source).get("tie_word_embeddings"):
        raise InvalidInputError(source, "has a head of its own; expected one tied to the embedding")
    module = _bare(config)
    fill_qwen(module.model, weights, dtype)
    _tie(module)
    return module


def _bare(config: Qwen3Config) -> Qwen3ForCausalLM:
    return bare(Qwen3ForCausalLM, config)


def _tie(module: Qwen3ForCausalLM) -> None:
    module.lm_head.weight = module.model.embed_tokens.weight
