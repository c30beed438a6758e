"""Main memory that weights take during and after loading, computed from headers before anything is loaded.

A tensor that is stored in the format in which it is used stays a memory map of its file: the system can drop such pages
and read them again, so they do not count. Weights that are converted, quantized, packed, folded or made in code are
memory of the process, and count in full.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import torch

from acestep.checkpoints import catalog
from acestep.checkpoints.catalog import DUMMY_PREFIX, TINY
from acestep.checkpoints.configs import has_parts, parts_in
from acestep.checkpoints.convert import PREFIXES
from acestep.checkpoints.header import StoredTensor, read_header
from acestep.checkpoints.intact import with_remedy
from acestep.checkpoints.locate import locate, locate_companion, locate_lm
from acestep.checkpoints.qwen import HEAD
from acestep.checkpoints.weight_files import weight_files
from acestep.errors import InvalidInputError
from acestep.knobs import WEIGHT_FORMATS, Quantization, Variant

_NAMES: Mapping[torch.dtype, str] = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""The names that headers use for the dtypes in which weights are used."""


class _Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some weights. `owned` ones are memory of the process once they are loaded, until their `quantization`.

    Adapters may change those of the transformer.
    """

    values: int
    owned: bool = True
    transformer: bool = False
    quantization: Quantization | None = None


def footprint(
    model: str,
    variant: Variant | None,
    checkpoints: Path,
    dtype: torch.dtype,
    quantization: Quantization | None,
    *,
    fused_values: int = 0,
    packed: bool = False,
) -> int:
    """Return the largest number of bytes during loading and quantizing of `model`; the arguments are those of `load`.

    `fused_values` values of the transformer become memory of the process because adapters change them, and all matrices
    if they are `packed` for the CPU. 0 for `tiny`.
    Raises as `locate` does, and `InvalidInputError` for a damaged file.
    """
    if model in catalog.SIZES:
        return _made_footprint(catalog.SIZES[model], variant or Variant.TURBO, dtype)
    folder = locate(model, checkpoints)
    if has_parts(folder):
        places = {part: folder / part for part in (*parts_in(folder), "vae", "text_encoder")}
    else:
        companions = {"vae": "vae", "text_encoder": "text-encoder"}
        places = {part: locate_companion(name, folder, checkpoints) for part, name in companions.items()}
        places["original"] = folder

    def is_transformer(part: str, name: str) -> bool:
        return part == "transformer" or (part == "original" and name.startswith(PREFIXES["transformer"]))

    return _most(
        (
            # The VAE's weight norm is folded into new tensors.
            _piece(tensor, dtype, packed=packed, quantization=quantization, transformer=True)
            if is_transformer(part, name)
            else _piece(
                tensor,
                dtype,
                owned=part == "vae",
                # The condition encoder has linear layers of that name.
                packed=packed and not (part == "text_encoder" and _is_embedding(name)),
                quantization=None,
            )
            for part, place in places.items()
            for name, tensor in _tensors(place).items()
        ),
        dtype,
        fused_values,
    )


def lm_footprint(
    name: str, checkpoints: Path, dtype: torch.dtype, quantization: Quantization | None, *, packed: bool = False
) -> int:
    """Return the same for the language model `name`, which is what `load_lm` takes."""
    if name == TINY or name.startswith(DUMMY_PREFIX):
        return _made_lm_footprint(name, dtype)
    tensors = _tensors(locate_lm(name, checkpoints)).items()
    return _most(
        (
            _piece(tensor, dtype, quantization=None)
            if _is_embedding(key)
            else _piece(tensor, dtype, packed=packed and quantization is None, quantization=quantization)
            for key, tensor in tensors
        ),
        dtype,
    )


def _is_embedding(name: str) -> bool:
    """Return whether a tensor is an embedding, which is looked up in, and neither quantized nor packed."""
    return name.endswith("embed_tokens.weight")


def _made_footprint(size: catalog.Size, variant: Variant, dtype: torch.dtype) -> int:
    """Return the bytes of a model made in code; 0 for a tiny one."""
    if size == "tiny":
        return 0
    params = catalog.PARAMS_XL if variant.is_xl else catalog.PARAMS_2B
    return (params + sum(catalog.checkpoint_of(name).params for name in ("vae", "text-encoder"))) * dtype.itemsize


def _made_lm_footprint(name: str, dtype: torch.dtype) -> int:
    """Return the bytes of a language model made in code, `tiny` or `dummy:SIZE`; 0 for a tiny one."""
    if name == TINY:
        return 0
    return catalog.lm_checkpoint(name.removeprefix(DUMMY_PREFIX)).params * dtype.itemsize


def _piece(
    tensor: StoredTensor,
    dtype: torch.dtype,
    *,
    owned: bool = False,
    packed: bool = False,
    quantization: Quantization | None,
    transformer: bool = False,
) -> _Piece:
    # The weights of linear layers.
    is_matrix = len(tensor.shape) == 2
    return _Piece(
        values=tensor.values,
        transformer=transformer,
        owned=owned or tensor.dtype != _NAMES.get(dtype) or (packed and is_matrix),
        quantization=quantization if is_matrix else None,
    )


def _most(pieces: Iterable[_Piece], dtype: torch.dtype, fused_values: int = 0) -> int:
    """Everything is loaded first; then one layer after another is quantized.

    Adapters change linear layers of the transformer, and a changed weight takes the place of one that is memory of the
    process already.
    """
    loaded = in_the_end = mapped = 0
    quantized = False
    for piece in pieces:
        held = piece.values * dtype.itemsize * piece.owned
        loaded += held
        bits = None if piece.quantization is None else WEIGHT_FORMATS[piece.quantization].bits
        in_the_end += held if bits is None else piece.values * bits // 8
        quantized |= bits is not None
        mapped += 0 if piece.owned or not piece.transformer else piece.values
    fused = min(fused_values, mapped) * dtype.itemsize
    return max(loaded + fused, in_the_end + (0 if quantized else fused))


def _tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors in a folder's files except a language model's head, which is not read."""
    files = weight_files(folder)
    try:
        headers = [read_header(file) for file in (files if len(files) == 1 else files[1:])]
    except InvalidInputError as flaw:
        raise with_remedy(flaw, folder) from None
    return {name: tensor for header in headers for name, tensor in header.items() if name != HEAD}
