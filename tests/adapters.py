"""Adapters on disk for tests, in each layout that people have, and what each adds to a weight by its definition."""

import json
from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

Arrays = Mapping[str, np.ndarray]

ORIGINAL = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "o_proj"}


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter of one layer: its file or folder, and what it adds to the weight at scale 1, in float64."""

    path: Path
    layer: str
    adds: np.ndarray


def original(layer: str) -> str:
    """The name of a layer of a block in the original layout."""
    for ours, theirs in ORIGINAL.items():
        layer = layer.replace(f".{ours}", f".{theirs}") if layer.endswith(f".{ours}") else layer
    return layer


def flat(prefix: str) -> Callable[[str], str]:
    return lambda layer: prefix + original(layer).replace(".", "_")


def shape_of(transformer: nn.Module, layer: str) -> tuple[int, ...]:
    """The shape of a layer's weight."""
    return tuple(transformer.get_submodule(layer).weight.shape)


def numbers(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Multiples of 1/8 below 1: sums and products of a few are exact in float32."""
    return draw.integers(-7, 8, shape) / 8


NAMES: dict[str, Callable[[str], str]] = {
    "peft": lambda layer: f"base_model.model.{original(layer)}",
    "bare": original,
    "diffusers": lambda layer: f"transformer.{layer}",
    "comfy": lambda layer: f"diffusion_model.decoder.{original(layer)}",
    "kohya": flat("lora_unet_"),
    "kohya for comfy": flat("lora_unet_decoder_"),
    "lycoris": flat("lycoris_"),
}
"""How a file calls a layer."""

ENDINGS = {
    "peft": ("lora_A.weight", "lora_B.weight"),
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "default": ("lora_A.default.weight", "lora_B.default.weight"),
}


def write(path: Path, arrays: Mapping[str, Any], metadata: dict[str, str] | None = None, **config: Any) -> Path:
    """Write tensors as float32 to a file; a configuration of PEFT goes beside it, and then the folder is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: torch.as_tensor(np.asarray(array), dtype=torch.float32) for key, array in arrays.items()},
        path,
        metadata=metadata,
    )
    if config:
        (path.parent / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
        return path.parent
    return path


def product(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """B A, by its definition."""
    return np.einsum("or,ri->oi", up.reshape(up.shape[0], -1), down.reshape(down.shape[0], -1))


def kronecker(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The Kronecker product, by its definition: [a, c] and [b, d, ...] make [a b, c d, ...]."""
    (a, c), (b, d, *kernel) = first.shape, second.shape
    each = np.einsum("ac,bd...->abcd...", first, second)
    return each.reshape(a * b, c * d, *kernel)


def lora(
    folder: Path,
    layer: str,
    shape: tuple[int, ...],
    draw: np.random.Generator,
    *,
    rank: int = 4,
    names: str = "peft",
    endings: str = "peft",
    power: int | None = 0,
    told: str = "alpha",
) -> Made:
    """A LoRA whose change is multiplied by 2 to the `power`; None writes no alpha, and the factor is 1.

    The alpha is `told` by a tensor ("alpha"), by PEFT's configuration ("config", "rslora", "pattern") or by the header
    ("header").
    """
    name = NAMES[names](layer)
    down, up = numbers(draw, rank, *shape[1:]), numbers(draw, shape[0], rank, *[1] * (len(shape) - 2))
    factor = 1.0 if power is None else 2.0**power
    arrays: dict[str, Any] = {f"{name}.{ENDINGS[endings][0]}": down, f"{name}.{ENDINGS[endings][1]}": up}
    metadata, config = None, {}
    if power is not None and told == "alpha":
        arrays[f"{name}.alpha"] = factor * rank
    elif power is not None and told == "config":
        config = {"r": rank, "lora_alpha": factor * rank}
    elif power is not None and told == "rslora":
        config = {"r": rank, "lora_alpha": factor * sqrt(rank), "use_rslora": True}
    elif power is not None and told == "pattern":
        last = original(layer).rpartition(".")[2]
        config = {"r": 3, "lora_alpha": 5, "rank_pattern": {last: rank}, "alpha_pattern": {last: factor * rank}}
    elif power is not None:
        metadata = {
            "lora_adapter_metadata": json.dumps({"transformer.r": rank, "transformer.lora_alpha": factor * rank})
        }
    path = write(folder / "adapter_model.safetensors", arrays, metadata, **config)
    return Made(path=path, layer=layer, adds=(product(up, down) * factor).reshape(shape))


def lokr(
    folder: Path,
    layer: str,
    shape: tuple[int, ...],
    draw: np.random.Generator,
    *,
    rank: int = 2,
    names: str = "lycoris",
    form: str = "w1 w2",
    power: int | None = 0,
) -> Made:
    """A LoKr of a form: which factors are products, and whether a product of a convolution has a core (t2)."""
    (out, into, *kernel), name = shape, NAMES[names](layer)
    (a, c), (b, d) = (4, 2), (out // 4, into // 2)
    arrays: dict[str, Any] = {}
    if "w1_a" in form:
        arrays |= {"lokr_w1_a": numbers(draw, a, rank), "lokr_w1_b": numbers(draw, rank, c)}
        first = arrays["lokr_w1_a"] @ arrays["lokr_w1_b"]
    else:
        first = arrays["lokr_w1"] = numbers(draw, a, c)
    if "t2" in form:
        core, rows, columns = numbers(draw, rank, rank, *kernel), numbers(draw, rank, b), numbers(draw, rank, d)
        arrays |= {"lokr_t2": core, "lokr_w2_a": rows, "lokr_w2_b": columns}
        second = np.einsum("ij...,ib,jd->bd...", core, rows, columns)
    elif "w2_a" in form:
        wide = d * int(np.prod(kernel, dtype=int))
        arrays |= {"lokr_w2_a": numbers(draw, b, rank), "lokr_w2_b": numbers(draw, rank, wide)}
        second = (arrays["lokr_w2_a"] @ arrays["lokr_w2_b"]).reshape(b, d, *kernel)
    else:
        second = arrays["lokr_w2"] = numbers(draw, b, d, *kernel)
    if power is not None:
        arrays["alpha"] = 2.0**power * rank
    factor = 1.0 if power is None or form == "w1 w2" else 2.0**power
    path = write(folder / "lokr_weights.safetensors", {f"{name}.{part}": array for part, array in arrays.items()})
    return Made(path=path, layer=layer, adds=kronecker(first, second) * factor)


def add_by_hand(transformer: nn.Module, made: Made, scale: float) -> None:
    """Add an adapter to its weight with the arithmetic of this module."""
    module = transformer.get_submodule(made.layer)
    changed = module.weight.double() + scale * torch.from_numpy(made.adds)
    module.weight = nn.Parameter(changed.to(module.weight.dtype), requires_grad=False)
