"""The language model through mlx-lm, for Apple's GPUs. Tested only on MLX's CPU build, never on Apple hardware.

Sequences are run one by one: on these machines the speed of a step depends on reading the weights, and most requests
are for one song.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from acestep.checkpoints.configs import read_config
from acestep.checkpoints.weight_files import weight_files
from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.base import StepsWritten
from acestep.lm.backends.keys import prefixed
from acestep.lm.job import Job
from acestep.lm.sampling import Chooser, Draft, Sampler, guide

_PREFILL_TOKENS: Final = 512
"""Prompt tokens processed in one forward pass."""

GROWTH_TOKENS: Final = 256
"""mlx-lm enlarges the keys and values of a sequence in steps of this many tokens (`KVCache.step`)."""

_OUT_OF_MEMORY: Final = ("[metal::malloc]", "[malloc", "Insufficient Memory")
"""The error texts of MLX for too little memory; it has no exception class for that."""


class MlxBackend:
    """Writes sequences with the checkpoint in `folder`; the weights keep the dtype of the file.

    Raises `ImportError` if mlx-lm is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chooser: Chooser = Sampler(CpuDevice())
        self._model: Any = _load(folder)

    def write(self, jobs: Sequence[Job], written: StepsWritten) -> list[tuple[int, ...]]:
        drafts = [Draft(job) for job in jobs]
        live = [draft for draft in drafts if not draft.done]
        if live:
            self._make_ready()
            with _memory_errors():
                self._write(live, max(job.max_tokens for job in jobs), written)
        return [tuple(draft.tokens) for draft in drafts]

    def cache_bytes(self, jobs: Sequence[Job]) -> int:
        """Return the largest size in bytes of the keys and values of these jobs."""
        self._make_ready()
        args = self._model.args
        tokens = sum(len(prompt) + job.max_tokens + GROWTH_TOKENS - 1 for job in jobs for prompt in job.prompts)
        values = 2 * args.num_hidden_layers * args.num_key_value_heads * args.head_dim
        return int(tokens * values * self._model.model.embed_tokens.weight.dtype.size)

    def rehearse(self, jobs: Sequence[Job]) -> None:
        """Process sequences as long as the longest that these jobs can become, then take two steps more."""
        self._make_ready()
        with _memory_errors():
            rows = [_Row(self._model, prompt) for job in jobs for prompt in _longest(job)]
            for row in rows:
                for _ in range(2):
                    row.step(row.last)

    def rest(self) -> None:
        """Free the memory of the weights until the next `write`, which loads them again."""
        self.close()

    def close(self) -> None:
        """Free the weights and the memory that MLX keeps for reuse."""
        if self._model is None:
            return
        self._model = None
        gc.collect()
        import_module("mlx.core").clear_cache()

    def _make_ready(self) -> None:
        if self._model is None:
            self._model = _load(self._folder)

    def _write(self, live: list[Draft], most: int, written: StepsWritten) -> None:
        rows = {draft: [_Row(self._model, prompt) for prompt in draft.job.prompts] for draft in live}
        for step in range(1, most + 1):
            for draft, mine in list(rows.items()):
                draft.append(self._next(draft, mine))
                if draft.done:
                    del rows[draft]
            written(step, most)
            if not rows:
                return
            for draft, mine in rows.items():
                for row in mine:
                    row.step(draft.tokens[-1])

    def _next(self, draft: Draft, rows: Sequence["_Row"]) -> int:
        """Return the next token of a draft, chosen from the logits of its rows."""
        if draft.allowed.forced:
            return draft.allowed.spans[0].start
        values = rows[0].values()
        if draft.job.guided:
            values = guide(values, rows[1].values(), draft.job.sampling.guidance)
        return self._chooser.choose(values, (range(values.shape[1]),), [draft])[0]


class _Row:
    """One sequence: its keys and values, and `logits` [1, vocabulary] for the next token."""

    def __init__(self, model: Any, prompt: tuple[int, ...]) -> None:
        mx: Any = import_module("mlx.core")
        self._mx, self._model = mx, model
        self._cache = import_module("mlx_lm.models.cache").make_prompt_cache(model)
        self.last = prompt[-1]
        # The last token is processed separately, so that logits are computed only for it.
        for start in range(0, len(prompt) - 1, _PREFILL_TOKENS):
            chunk = prompt[start : min(start + _PREFILL_TOKENS, len(prompt) - 1)]
            model.model(mx.array([chunk]), self._cache)
            mx.eval([part.state for part in self._cache])
        self.step(self.last)

    def step(self, token: int) -> None:
        """Process one more token."""
        self.logits = self._model(self._mx.array([[token]]), self._cache)[0]
        self._mx.eval(self.logits)

    def values(self) -> Tensor:
        """Return the logits [1, vocabulary] as float32 on the host."""
        return torch.from_numpy(np.array(self.logits.astype(self._mx.float32)))


def _longest(job: Job) -> Iterator[tuple[int, ...]]:
    """Yield each prompt, padded so that two more tokens give the full length of the job."""
    for prompt in job.prompts:
        yield (*prompt, *[prompt[-1]] * (job.max_tokens - 2))


def _load(folder: Path) -> Any:
    mx: Any = import_module("mlx.core")
    qwen3: Any = import_module("mlx_lm.models.qwen3")
    fields = read_config(folder / "config.json") | {"tie_word_embeddings": True}
    # Configurations of transformers 5 keep this value inside a nested section.
    theta = (fields.get("rope_parameters") or {}).get("rope_theta", 1_000_000.0)
    model = qwen3.Model(qwen3.ModelArgs.from_dict({"rope_theta": theta} | fields))
    weights: dict[str, Any] = {}
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            weights |= {prefixed(key): array for key, array in mx.load(str(file)).items()}
    model.load_weights(list(model.sanitize(weights).items()), strict=True)
    mx.eval(model.parameters())
    return model


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise MLX's out-of-memory errors as `torch.OutOfMemoryError`, which callers handle."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise torch.OutOfMemoryError(str(error)) from error
        raise
