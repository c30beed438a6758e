"""The language model in the form that vLLM builds. Importing this module needs vLLM."""

from collections.abc import Iterable

from torch import Tensor
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from acestep.lm.backends.keys import prefixed


class PlannerLanguageModel(Qwen3ForCausalLM):  # type: ignore[misc]  # vLLM's classes are Any to mypy
    """Qwen3 from a checkpoint whose keys may lack the `model.` prefix, as in files saved without the head."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loaded: set[str] = super().load_weights((prefixed(name), tensor) for name, tensor in weights)
        return loaded
