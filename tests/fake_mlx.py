"""As much of mlx and mlx-lm as the backend uses, over PyTorch, for machines that have neither."""

import sys
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM, Qwen3Model


def cache_argument(forward: Callable[..., Any]) -> str:
    """The name of the argument for keys and values: `cache`, or `past_key_values` before transformers 5.24."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


CACHE = cache_argument(Qwen3Model.forward)


class Array:
    """An array of the fake: a tensor that only gives its values to NumPy as float32."""

    def __init__(self, values: Any) -> None:
        self.tensor: Tensor = values if isinstance(values, Tensor) else torch.tensor(values)

    def __getitem__(self, index: int) -> "Array":
        return Array(self.tensor[index])

    def astype(self, dtype: torch.dtype) -> "Array":
        return Array(self.tensor.to(dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.tensor.dtype is not torch.float32:
            raise TypeError(f"NumPy has no {self.tensor.dtype}")
        return self.tensor.numpy().copy()


class Part:
    """The keys and values of every layer; MLX has one such object a layer."""

    def __init__(self) -> None:
        self.held = DynamicCache()
        self.state: tuple[Any, ...] = ()


class Body:
    """The model without its head."""

    def __init__(self, whole: "Model") -> None:
        self.whole = whole
        self.embed_tokens = SimpleNamespace(weight=SimpleNamespace(dtype=SimpleNamespace(size=4)))

    def __call__(self, tokens: Array, cache: Sequence[Part]) -> Array:
        self.whole.read.append(tokens.tensor.shape[1])
        with torch.no_grad():
            made = self.whole.torch_model.model(tokens.tensor, **{CACHE: cache[0].held}, use_cache=True)
        return Array(made.last_hidden_state)


class Model:
    """`mlx_lm.models.qwen3.Model`; `read` is how many tokens each forward had."""

    def __init__(self, args: SimpleNamespace) -> None:
        self.args = args
        self.read: list[int] = []
        self.model = Body(self)
        self.torch_model = Qwen3ForCausalLM(Qwen3Config(**vars(args))).eval()

    def __call__(self, tokens: Array, cache: Sequence[Part]) -> Array:
        made = self.model(tokens, cache).tensor
        return Array(torch.nn.functional.linear(made, self.torch_model.model.embed_tokens.weight.detach()))

    def sanitize(self, weights: dict[str, Array]) -> dict[str, Array]:
        return {key: array for key, array in weights.items() if key != "lm_head.weight"}

    def load_weights(self, weights: list[tuple[str, Array]], *, strict: bool) -> None:
        expected = {key for key in self.torch_model.state_dict() if key != "lm_head.weight"}
        if strict and {key for key, _ in weights} != expected:
            raise ValueError("Missing or unexpected parameters")
        self.torch_model.load_state_dict({key: array.tensor for key, array in weights}, strict=False)

    def parameters(self) -> list[Any]:
        return []


def model_args(fields: dict[str, Any]) -> SimpleNamespace:
    """`ModelArgs.from_dict`: what it knows of a configuration."""
    known = (
        "hidden_size num_hidden_layers intermediate_size num_attention_heads rms_norm_eps vocab_size "
        "num_key_value_heads max_position_embeddings rope_theta head_dim tie_word_embeddings"
    )
    return SimpleNamespace(**{name: fields[name] for name in known.split()})


def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Let `import mlx` and `import mlx_lm` find the fake; its `mlx.core`."""
    core = module("mlx.core", array=Array, eval=lambda *arrays: None, float32=torch.float32, clear_cache=lambda: None)
    core.load = lambda file: {key: Array(tensor) for key, tensor in load_file(Path(file)).items()}  # type: ignore[attr-defined]
    modules = [
        module("mlx", core=core),
        core,
        module("mlx_lm"),
        module("mlx_lm.models"),
        module("mlx_lm.models.cache", make_prompt_cache=lambda model: [Part()]),
        module("mlx_lm.models.qwen3", Model=Model, ModelArgs=SimpleNamespace(from_dict=model_args)),
    ]
    for made in modules:
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return core


def module(name: str, **attributes: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(attributes)
    return made
